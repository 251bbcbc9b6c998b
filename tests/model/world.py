"""The model's world: a store that can lose its last second, a cluster, two operators, two runners.

The store's rules are `store/memory.py`'s own, and the runners' are RunSession's own. The operators are
the rows of the specification that an epoch goes through: adopt, push, create, take over. An operator
acts on what it saw, however old that is; to look again is what a crash comes to.
"""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any, NamedTuple, TypeVar

from model.runners import COMMITS, Event, Request, Runners

from perdure.errors import StoreUnavailableError
from perdure.store.base import Reply
from perdure.store.memory import MemoryRunStore, MemoryStore, _Run
from perdure.store.records import digest, input_record, unframe

T = TypeVar("T")
KEY = ("default", "uid")
UNAVAILABLE = StoreUnavailableError("no reply")


class Kept(NamedTuple):
    """What the store holds of the run."""

    log: tuple[bytes, ...]
    epoch: int
    holder: str
    seq: int
    digest: str
    outcome: bytes | None
    cause: str
    server: str
    restarts: int  # that were told; 1 for more


class Slot(NamedTuple):
    """Where a runner's process is, or was. `place` is -1 when there is none."""

    epoch: int
    holder: str
    place: int
    crashes: int  # that may still come


class State(NamedTuple):
    store: Kept
    disk: Kept  # what a rollback goes back to
    server: int  # how often it was restarted
    epoch: int  # the cluster's status
    pods: tuple[str, ...]  # by epoch: "" none, "runs", "ended"
    made: tuple[int, ...]  # by epoch: processes that were started
    slots: tuple[Slot, Slot]
    seen: tuple[Any, Any]  # by operator: what it is about to act on
    late: tuple[Request, ...]  # requests whose sender has given them up, and that may still arrive
    rollbacks: int
    losses: int
    forgotten: int  # pods that may still be removed while their process lives
    promised: frozenset[str]  # records whose commit was answered
    lost: frozenset[str]  # those of them that a rollback took
    told: bool  # somebody said that the store went back


class Bounds(NamedTuple):
    """How often what may happen happens at most."""

    rollbacks: int
    losses: int
    crashes: int  # of each runner
    forgotten: int
    epochs: int


class Broken(Exception):
    """A promise is broken."""


class World:
    """What can follow from each state."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.runners = Runners()
        self._memory = MemoryStore(lambda: 0.0, durable="everysec")
        self._run = MemoryRunStore(self._memory, *KEY)

    def first(self) -> State:
        record = input_record({})
        kept = Kept((record,), 1, "", 0, digest(record), None, "", "server 0", 0)
        bounds = self.bounds
        return State(
            store=kept,
            disk=kept,
            server=0,
            epoch=1,
            pods=("",) * bounds.epochs,
            made=(0,) * bounds.epochs,
            slots=(Slot(0, "", -1, bounds.crashes),) * 2,
            seen=(None, None),
            late=(),
            rollbacks=bounds.rollbacks,
            losses=bounds.losses,
            forgotten=bounds.forgotten,
            promised=frozenset(),
            lost=frozenset(),
            told=False,
        )

    def next(self, state: State) -> Iterator[tuple[str, State]]:
        """All that can happen in `state`, and what comes of it. Raises Broken."""
        yield from self._operators(state)
        yield from self._network(state)
        yield from self._store(state)
        yield from self._cluster(state)

    def check(self, state: State) -> None:
        """Raises Broken when a record that was promised is gone and nobody is left to tell."""
        if (
            state.store.outcome is None
            or state.told
            or state.store.restarts
            or any(slot.place >= 0 for slot in state.slots)
        ):
            return
        gone = state.promised - set(_tokens(state.store.log))
        if gone:
            raise Broken(f"the run has ended without {sorted(gone)}, which was promised, and nobody said so")

    # --- operators ------------------------------------------------------------------------------------

    def _operators(self, state: State) -> Iterator[tuple[str, State]]:
        for who in (0, 1):
            if who == 1 and state.seen[0] == state.seen[1]:
                continue  # they are alike
            if state.store.outcome is None:
                now = (state.epoch, state.store.epoch, state.pods[state.epoch - 1])
                if state.seen[who] != now:
                    yield (
                        f"operator {who} looks: epoch {now[0]}, store {now[1]}, pod {now[2] or 'none'}",
                        (_seen(state, who, now)),
                    )
            if state.seen[who] is not None:
                yield from self._act(state, who)

    def _act(self, state: State, who: int) -> Iterator[tuple[str, State]]:
        epoch, stored, pod = state.seen[who]
        done = _seen(state, who, None)
        name = f"operator {who}"
        if stored > epoch:
            if state.epoch == epoch:  # the status is written only where it was read
                yield f"{name} adopts the store's epoch {stored}", done._replace(epoch=stored)
        elif stored < epoch:
            store, _ = self._ask(state, lambda: self._run.advance(epoch, "LeaseExpired"))
            yield f"{name} tells the store epoch {epoch}", done._replace(store=store)
        elif not pod:
            free = [i for i, slot in enumerate(state.slots) if slot.place < 0]
            if free and not state.pods[epoch - 1]:
                holder = f"{epoch}{'abc'[state.made[epoch - 1]]}" if state.made[epoch - 1] < 3 else ""
                if holder:
                    place, _ = self.runners.start(epoch, holder)
                    slot = Slot(epoch, holder, place, state.slots[free[0]].crashes)
                    yield (
                        f"{name} makes pod {epoch}, process {holder}",
                        done._replace(
                            pods=_put(state.pods, epoch - 1, "runs"),
                            made=_put(state.made, epoch - 1, state.made[epoch - 1] + 1),
                            slots=_put(state.slots, free[0], slot),
                        ),
                    )
        elif state.epoch == epoch < self.bounds.epochs:
            why = "has ended" if pod == "ended" else "is silent"
            yield (
                f"{name} takes over, as pod {epoch} {why}: epoch {epoch + 1}",
                done._replace(epoch=epoch + 1),
            )

    # --- the store and the way to it --------------------------------------------------------------------

    def _network(self, state: State) -> Iterator[tuple[str, State]]:
        for index, slot in enumerate(state.slots):
            request = self.runners.request(slot.place) if slot.place >= 0 else None
            if request is None:
                continue
            store, answer = self._serve(state, request)
            name = f"{slot.holder} {_told(request)}"
            yield f"{name}: {_told(answer)}", self._goes_on(state._replace(store=store), index, answer)
            if state.losses:
                late = state._replace(losses=state.losses - 1, late=_late(state.late, request))
                yield f"{name}: no reply", self._goes_on(late, index, UNAVAILABLE)
            if slot.crashes:
                gone = _ends(state, index, crashed=True)
                yield f"{slot.holder} crashes", gone
                yield (
                    f"{slot.holder} crashes, {_told(request)} under way",
                    gone._replace(late=_late(gone.late, request)),
                )
        for request in dict.fromkeys(state.late):
            rest = list(state.late)
            rest.remove(request)
            store, answer = self._serve(state, request)
            yield (
                f"late: {request.holder} {_told(request)}: {_told(answer)}",
                state._replace(store=store, late=tuple(rest)),
            )

    def _store(self, state: State) -> Iterator[tuple[str, State]]:
        if state.disk == state.store or not state.rollbacks:
            return
        yield "the store syncs its disk", state._replace(disk=state.store)
        took = state.promised.intersection(_tokens(state.store.log)) - set(_tokens(state.disk.log))
        after = state._replace(
            store=state.disk,
            server=state.server + 1,
            rollbacks=state.rollbacks - 1,
            late=(),  # its connections are gone with it
            lost=state.lost | took,
        )
        for holder in [slot.holder for slot in state.slots if slot.place >= 0]:
            index = next(i for i, slot in enumerate(after.slots) if slot.holder == holder)
            after = self._goes_on(after, index, UNAVAILABLE)
        yield "the store restarts from its disk" + (f", without {sorted(took)}" if took else ""), after

    def _cluster(self, state: State) -> Iterator[tuple[str, State]]:
        if not state.forgotten:
            return
        for index, pod in enumerate(state.pods):
            if pod == "runs":
                yield (
                    f"pod {index + 1} is removed, its process lives",
                    state._replace(pods=_put(state.pods, index, ""), forgotten=state.forgotten - 1),
                )

    def _serve(self, state: State, request: Request) -> tuple[Kept, Any]:
        epoch, holder, commit = request.epoch, request.holder, request.commit
        if request.name == "load":
            return self._ask(state, self._run.load)
        if request.name == "acquire":
            return self._ask(state, lambda: self._run.acquire(epoch, holder, 10_000))
        assert commit is not None
        store, answer = self._ask(state, lambda: self._run.commit(epoch, holder, commit))
        if len(store.log) > len(state.store.log) > 1:
            _one_writer(state.store.log[-1], store.log[-1])
        return store, answer

    def _ask(self, state: State, call: Any) -> tuple[Kept, Any]:
        """What the store answers in `state`, and what it holds then."""
        kept = state.store
        run = _Run(
            log=list(kept.log), epoch=kept.epoch, holder=kept.holder, seq=kept.seq, digest=kept.digest,
            outcome=kept.outcome, cause=kept.cause, server=kept.server, restarts=kept.restarts,
        )  # fmt: skip
        self._memory.runs[KEY] = run
        self._memory.server_id = f"server {state.server}"
        answer = _answer(call())
        now = Kept(
            tuple(run.log), run.epoch, run.holder, run.seq, run.digest, run.outcome, run.cause, run.server,
            min(run.restarts, 1),
        )  # fmt: skip
        return now, answer

    # --- runners ------------------------------------------------------------------------------------------

    def _goes_on(self, state: State, index: int, reply: Any) -> State:
        slot = state.slots[index]
        place, events = self.runners.reply(slot.place, reply)
        for event in events:
            state = self._did(state, slot.holder, event)
        if self.runners.request(place) is None:
            return _ends(state, index)
        return state._replace(slots=_sorted(_put(state.slots, index, slot._replace(place=place))))

    def _did(self, state: State, who: str, event: Event) -> State:
        kept = state.promised - state.lost
        match event.what:
            case "resumed":
                missing = kept - set(event.detail)
                if missing:
                    raise Broken(f"{who} resumes without {sorted(missing)}, which was promised")
            case "began":
                again = [token for token in kept if int(token.split()[0]) == event.detail]
                if again:
                    raise Broken(f"{who} runs step {event.detail} again, of which {again[0]!r} was promised")
            case "committed":
                other = [t for t in kept if t != event.detail and t.split()[0] == event.detail.split()[0]]
                if other:
                    raise Broken(f"{event.detail!r} is promised beside {other[0]!r}")
                return state._replace(promised=state.promised | {event.detail})
            case "ended" if event.detail.startswith("StateLostError"):
                if not state.server and self._is_its_turn(state, who):
                    raise Broken(f"{who} says that state is lost, and none was: {event.detail}")
                return state._replace(told=True)
            case "ended" if event.detail.startswith("LeaseLostError"):
                if self._is_its_turn(state, who):
                    raise Broken(f"{who}, whose turn it is, is sent away: {event.detail}")
            case "ended" if not event.detail.startswith("RunEndedError"):
                raise Broken(f"{who} ends: {event.detail}")
        return state

    @staticmethod
    def _is_its_turn(state: State, who: str) -> bool:
        """Whether no later epoch was told to anybody, and no other process of its own was made."""
        epoch = int(who[:-1])
        return epoch == max(state.epoch, state.store.epoch) and state.made[epoch - 1] == 1


def _one_writer(before: bytes, now: bytes) -> None:
    """A record follows the one before it, and its writer is of a later epoch or the same one."""
    first, second = unframe(before), unframe(now)
    writers = first.payload.split()[-1], second.payload.split()[-1]
    if second.seq != first.seq + 1:
        raise Broken(f"record {second.seq} stands where {first.seq + 1} belongs")
    if second.epoch < first.epoch or (second.epoch == first.epoch and writers[0] != writers[1]):
        raise Broken(f"{second.payload.decode()!r} is written after {first.payload.decode()!r}")


def _ends(state: State, index: int, *, crashed: bool = False) -> State:
    slot = state.slots[index]
    pods = state.pods
    others = [s for i, s in enumerate(state.slots) if i != index and s.place >= 0 and s.epoch == slot.epoch]
    if pods[slot.epoch - 1] == "runs" and not others:
        pods = _put(pods, slot.epoch - 1, "ended")
    gone = Slot(0, "", -1, slot.crashes - crashed)
    return state._replace(pods=pods, slots=_sorted(_put(state.slots, index, gone)))


def _tokens(log: tuple[bytes, ...]) -> list[str]:
    return [_token(record) for record in log[1:]]


_TOKENS: dict[bytes, str] = {}


def _token(record: bytes) -> str:
    token = _TOKENS.get(record)
    if token is None:
        token = _TOKENS[record] = unframe(record).payload.decode()
    return token


def _put(items: Any, index: int, item: Any) -> Any:
    return (*items[:index], item, *items[index + 1 :])


def _sorted(slots: Any) -> Any:
    """The two are alike: which of them is first says nothing."""
    return tuple(sorted(slots))


def _seen(state: State, who: int, what: Any) -> State:
    seen = list(state.seen)
    seen[who] = what
    return state._replace(seen=tuple(sorted(seen, key=lambda one: one or ())))


def _late(late: tuple[Request, ...], request: Request) -> tuple[Request, ...]:
    return tuple(sorted((*late, request), key=repr)) if request.name != "load" else late


def _answer(question: Awaitable[T]) -> T:
    try:
        question.send(None)  # type: ignore[attr-defined]
    except StopIteration as answer:
        return answer.value  # type: ignore[no-any-return]
    raise AssertionError("the store in memory waits for nothing")


def _told(what: Any) -> str:
    if isinstance(what, Request):
        return f"commit {what.commit.seq} ({_token(what.commit.record)})" if what.commit else what.name
    if isinstance(what, Reply):
        return f"{what.tag} {what.number}"
    return f"{type(what).__name__} seq {what.seq}"


__all__ = ["COMMITS", "Bounds", "Broken", "State", "World"]
