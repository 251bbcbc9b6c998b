"""The real `decide` in a small world that breaks: store, pods, nodes, operators; time is turned."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

import pytest

from perdure.control import actions as do
from perdure.control.api import WorkflowRunSpec
from perdure.control.case import Case
from perdure.control.decide import decide
from perdure.control.observation import Observation, Pod, PodState, StoreState, StoreView
from perdure.control.outcome import Outcome, Summary, encode_outcome, encode_summary
from perdure.control.status import Phase, WorkflowRunStatus, read_status
from perdure.control.storeside import StoreAction, apply_to_store, goes_on, observe_store
from perdure.control.storewatch import Now, StoreWatch
from perdure.control.transitions import pod_refused
from perdure.errors import StoreUnavailableError
from perdure.store.base import Commit, Reply, RunStore, StoreFacts, Tag
from perdure.store.memory import MemoryStore

LEASE = 10
EPOCH0 = 1_700_000_000.0
KEY = ("default", "uid")
T = TypeVar("T")
TICKS, QUIET = 500, 280


class Stopped(Exception):
    """The apply ends here: an operator died, a write was refused, the store is away."""


class Store(MemoryStore):
    """A store that can be away."""

    up = True

    async def server(self, namespace: str) -> StoreFacts:
        if not self.up:
            raise StoreUnavailableError("connection refused")
        return await super().server(namespace)


def ask(question: Coroutine[Any, Any, T]) -> T:
    """The answer of a store that never waits, without a loop."""
    try:
        question.send(None)
    except StopIteration as answer:
        return cast(T, answer.value)
    raise AssertionError("the store in memory waits for nothing")


@dataclass
class Process:
    """A pod as Kubernetes shows it, and the runner in it as it is."""

    uid: str
    epoch: int
    since: float
    state: PodState = PodState.UNSCHEDULED
    deleting: float | None = None
    node: str = "ready"
    alive: bool = False
    cut_off: bool = False
    listed: bool = True
    renewed: float | None = None
    seq: int = 0
    exit_code: int | None = None
    message: str = ""
    ended: float | None = None
    disrupted: bool = False

    def seen(self) -> Pod:
        return Pod(
            name=f"run-{self.epoch}",
            uid=self.uid,
            epoch=self.epoch,
            state=self.state,
            since=self.since,
            deleting=self.deleting is not None,
            node=f"node-of-{self.uid}",
            node_ready=self.node != "notready",
            exit_code=self.exit_code,
            message=self.message,
            disrupted=self.disrupted,
            finished_at=self.ended,
        )


@dataclass
class World:
    rng: random.Random
    now: float = EPOCH0
    spec: WorkflowRunSpec = field(
        default_factory=lambda: WorkflowRunSpec.model_validate({"workflow": {"entrypoint": "a:b"}})
    )
    status: WorkflowRunStatus = field(default_factory=WorkflowRunStatus)
    version: int = 0
    deletion: float | None = None
    finalizer: bool = False
    gone: bool = False
    # the store
    store: Store = field(init=False)
    backup: Any = None
    wiped: bool = False
    # the cluster
    pods: list[Process] = field(default_factory=list)
    watch: StoreWatch = field(init=False)
    run_store: RunStore = field(init=False)
    faulty: bool = True
    # what must hold
    faults: int = 1
    faults_seen: int = 0
    takeovers: int = 0
    holders: dict[int, set[str]] = field(default_factory=dict)
    outcome: bytes | None = None
    old_status: WorkflowRunStatus | None = None

    def __post_init__(self) -> None:
        self.watch = StoreWatch(self.clock)
        self.store = Store(lambda: self.now, durable="everysec")
        self.run_store = self.store.run(*KEY)

    @property
    def clock(self) -> Now:
        return Now(self.now, self.now - EPOCH0)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    # --- the store ----------------------------------------------------------------------------------

    @property
    def held(self) -> Any:
        """What the store holds of the run, or None."""
        return self.store.runs.get(KEY)

    def act(self, action: do.Action) -> bool:
        """Whether the decision goes on after `action`; as a real caller applies it."""
        if not self.store.up and isinstance(action, StoreAction):
            raise Stopped("store")
        reply = ask(apply_to_store(action, self.run_store, record0=b"input", installation="i"))
        return goes_on(action, reply)

    def check_outcome(self) -> None:
        stands = self.held.outcome if self.held is not None else None
        if self.outcome is not None and not self.wiped:
            assert stands == self.outcome or self.deletion, "an outcome changed"
        self.outcome = stands

    # --- the runner ---------------------------------------------------------------------------------

    def die(self, process: Process, code: int, reason: str = "") -> None:
        process.alive = False
        if process.listed and process.node != "dead":
            process.state, process.exit_code, process.ended = PodState.FINISHED, code, self.now
            process.since = self.now
            process.message = json.dumps({"epoch": process.epoch, "reason": reason}) if reason else ""

    def run(self, process: Process) -> None:
        if process.node == "paused":
            return None
        reaches = self.store.up and not process.cut_off
        if process.renewed is None:
            return self.take(process) if reaches else None
        if not reaches:
            return self.die(process, 76, "LeaseLost") if self.now - process.renewed >= LEASE else None
        renewed = ask(self.run_store.renew(process.epoch, process.uid, LEASE * 1000))
        if isinstance(renewed, Reply):
            return self.die(process, 0 if renewed.tag is Tag.OUTCOME else 76)
        process.renewed = self.now
        if process.deleting is not None and process.node == "ready":
            ask(self.run_store.release(process.epoch, process.uid, "yield"))
            return self.die(process, 75)
        if renewed.desired == "Cancelled" and self.chance(0.7):
            self.commit(process, outcome=encode_outcome(Outcome("Cancelled")))
            return self.die(process, 0)
        return self.work(process)

    def take(self, process: Process) -> None:
        got = ask(self.run_store.acquire(process.epoch, process.uid, LEASE * 1000))
        if isinstance(got, Reply):
            return self.die(process, 0 if got.tag is Tag.OUTCOME else 76)
        process.renewed, process.seq = self.now, got.seq
        holders = self.holders.setdefault(process.epoch, set())
        holders.add(process.uid)
        assert len(holders) == 1 or self.wiped, f"two holders of epoch {process.epoch}"
        return None

    def work(self, process: Process) -> None:
        summary = encode_summary(Summary(completed_steps=process.seq, waiting=self.chance(0.2)))
        if self.chance(0.05):
            summary = self.rng.choice(
                [b"", b"[]", b'{"activeSteps": 3}', b"\xff", b'{"lastProgressTime": 1e99}']
            )
        dice = self.rng.random()
        if dice < 0.4:
            self.commit(process, summary=summary, progress=True, flight=[("+", "i", "s"), ("=", "i", "s")])
        elif dice < 0.45:
            self.commit(process, summary=summary, flight=[("+", "j", "stuck")])
        elif dice < (0.4525 if self.faulty else 0.55):
            reason = self.rng.choice(["Completed", "StepFailed"])
            self.commit(process, outcome=encode_outcome(Outcome(reason, result={"n": 1})))
            self.die(process, 0)

    def commit(self, process: Process, **more: Any) -> None:
        """The next record; those that the store has forgotten are written again, or the runner gives up."""
        seq = process.seq + 1
        record = Commit(seq=seq, digest=f"{process.uid}-{seq}", record=b"r", **more)
        reply = ask(self.run_store.commit(process.epoch, process.uid, record))
        if reply.tag is Tag.GAP and self.chance(0.7):
            for missing in range(reply.number + 1, seq):
                again = Commit(seq=missing, digest=f"{process.uid}-{missing}", record=b"r")
                ask(self.run_store.commit(process.epoch, process.uid, again))
            reply = ask(self.run_store.commit(process.epoch, process.uid, record))
        if reply.tag is Tag.GAP:
            return self.die(process, 1)
        assert reply.ok or self.wiped, reply
        process.seq = seq
        return None

    # --- the passing of time, and what breaks -------------------------------------------------------

    def fault(self) -> None:
        self.faults += 1

    def tick(self) -> None:
        self.now += 1
        for process in self.pods:
            self.turn(process)
            if process.alive:
                self.run(process)
            if process.deleting is not None and process.listed:
                if process.state is PodState.UNSCHEDULED:
                    process.listed = False
                elif process.node == "ready" and self.now - process.deleting > 2:
                    process.alive = process.listed = False
            if self.faulty and process.listed:
                self.break_pod(process)
            self.mend(process)
        if self.faulty:
            self.break_store()
        elif not self.store.up:
            self.store.up = True
            self.fault()
        if self.store.up and self.held is not None and self.chance(0.3):
            self.backup = replace(self.held, log=list(self.held.log), flight=dict(self.held.flight))
        self.check_outcome()

    def turn(self, process: Process) -> None:
        if not process.listed:
            return
        if process.state is PodState.UNSCHEDULED and self.chance(0.7):
            process.state, process.since = PodState.UNACKNOWLEDGED, self.now
        elif process.node != "ready":
            return
        elif process.state is PodState.UNACKNOWLEDGED and self.chance(0.8):
            process.state, process.since = PodState.STARTING, self.now
        elif process.state is PodState.STARTING and self.chance(0.8):
            process.state, process.since, process.alive = PodState.RUNNING, self.now, True

    def break_pod(self, process: Process) -> None:
        dice = self.rng.random()
        if dice >= 0.07:
            return
        if dice < 0.02 and process.alive:
            code = self.rng.choice([1, 137] if self.chance(0.9) else [0, 76, 77])
            fatal = code == 77 and self.chance(0.3)
            self.die(process, code, "Incompatible" if fatal else "")
            process.disrupted = self.chance(0.2)
        elif dice < 0.03:
            process.node = self.rng.choice(["paused", "notready", "dead"])
            process.alive = process.alive and process.node != "dead"
        elif dice < 0.04:
            process.cut_off = True
        elif dice < 0.05:
            process.deleting = process.deleting or self.now
        elif dice < 0.06:
            process.listed = False  # deleted by force: the process may live on
        elif dice < 0.065 and process.state in (PodState.UNACKNOWLEDGED, PodState.STARTING):
            process.state, process.since = PodState.REJECTED, self.now
        elif dice < 0.068 and process.node == "dead":
            process.state = PodState.LOST
        else:
            return
        self.fault()

    def mend(self, process: Process) -> None:
        if process.node in ("paused", "notready") and self.chance(0.1):
            process.node = "ready"
        if process.cut_off and self.chance(0.1):
            process.cut_off = False
        if not self.faulty and process.node == "dead":
            process.listed = False

    def break_store(self) -> None:
        store = self.store
        if store.up and self.chance(0.01):
            store.up = False
            self.fault()
        elif not store.up and self.chance(0.1):
            store.up = True
            self.fault()  # it may have forgotten something
            if self.chance(0.5):
                store.restart()
        if self.held is not None and self.backup is not None and store.up and self.chance(0.002):
            store.runs[KEY] = replace(self.backup, log=list(self.backup.log))  # it restarts without its tail
            store.up, self.wiped = False, True
            store.restart()
            self.fault()
        if self.chance(0.0005):
            store.runs.clear()
            self.wiped = True
            self.fault()
        if self.chance(0.002):
            self.spec = self.spec.model_copy(update={"desired_state": "Cancelled"})
        if self.chance(0.0007):
            self.deletion = self.deletion or self.now
            self.gone = self.gone or not self.finalizer  # nothing holds it
        if self.chance(0.001) and self.old_status is not None:
            # The cluster is restored from a backup of an hour ago.
            self.status = self.old_status
            self.version += 1
            self.fault()
        if self.status.store_id and self.chance(0.01):
            self.old_status = self.status

    # --- the operator -------------------------------------------------------------------------------

    def look(self) -> Observation:
        pods = tuple(process.seen() for process in self.pods if process.listed)
        return Observation(
            store=self.look_at_store(), pods=pods, deletion_time=self.deletion, finalizer=self.finalizer
        )

    def look_at_store(self) -> StoreView:
        view = ask(
            observe_store(
                self.store,
                self.watch,
                namespace=KEY[0],
                uid=KEY[1],
                expected_id=self.status.store_id,
                lease_seconds=LEASE,
                clock=lambda: self.clock,
            )
        )
        if self.faulty and self.chance(0.01):
            return replace(view, crowd=True)
        if self.faulty and self.chance(0.002):
            return StoreView(StoreState.WRONG, trouble_until=self.now, message="another store")
        return view

    def write(self, action: do.SetStatus, version: int, takeover: bool) -> int:
        if version != self.version:
            raise Stopped("conflict")
        new: WorkflowRunStatus = action.status
        if action.fallbacks and self.faulty and self.chance(0.1):
            new = self.rng.choice(action.fallbacks)  # refused as too large
        assert new.epoch >= self.status.epoch, "status.epoch fell"
        if takeover:
            assert self.faults > 0, f"a takeover without a fault: {new.cause}"
            self.takeovers += 1
            self.faults -= self.faults_seen  # what broke after the look may cause one more
            self.faults_seen = 0
        text = json.dumps(new.to_json())
        assert len(text) <= 16 * 1024
        self.status = read_status(json.loads(text))
        self.version += 1
        return self.version

    def create(self, action: do.CreatePod, observation: Observation) -> None:
        if any(process.epoch == action.epoch and process.listed for process in self.pods):
            return
        if self.faulty and self.chance(0.05):
            code = self.rng.choice([403, 409, 429, 500] + ([422] if self.chance(0.05) else []))
            refusal = pod_refused(Case(self.spec, self.status, observation, self.now), code, "refused")
            self.apply(refusal, observation, self.version, None)
            raise Stopped("refused")
        uid = f"pod-{len(self.pods)}"
        self.pods.append(Process(uid=uid, epoch=action.epoch, since=self.now))

    def apply(
        self, decision: do.Decision, observation: Observation, version: int, die_at: int | None
    ) -> None:
        takeover = any(isinstance(action, do.AdvanceEpoch) for action in decision.actions)
        for position, action in enumerate(decision.actions):
            if position == die_at:
                self.watch = StoreWatch(self.clock)
                self.fault()
                raise Stopped("operator died")
            match action:
                case do.SetStatus():
                    version = self.write(action, version, takeover)
                case do.InitStore() if self.deletion is not None:
                    raise Stopped("the run is being deleted")
                case do.AddFinalizer():
                    self.finalizer = True
                case do.RemoveFinalizer():
                    self.finalizer, self.gone = False, True
                case do.DeleteRun():
                    self.deletion = self.deletion or self.now
                case do.CreatePod():
                    self.create(action, observation)
                case do.DeletePod(uid=uid):
                    for process in self.pods:
                        if process.uid == uid and process.deleting is None:
                            process.deleting = self.now
                case do.Requeue(after=after):
                    assert after >= 0
                    assert position == len(decision.actions) - 1, "a Requeue comes last"
                case _:
                    if not self.act(action):
                        return


def settled(world: World) -> bool:
    if world.gone or world.status.completion_time is not None:
        return True
    return Case(world.spec, world.status, world.look(), world.now).live


def live_through(seed: int, rows: Counter[int]) -> World:
    rng = random.Random(seed)
    world = World(rng)
    if rng.random() < 0.2:
        recovery = world.spec.recovery.model_copy(update={"max_disruptions": rng.choice([0, 3])})
        world.spec = world.spec.model_copy(update={"recovery": recovery})
    for tick in range(TICKS):
        world.faulty = tick < QUIET
        world.tick()
        for operator in range(2 if world.faulty else 1):
            if world.gone or (world.faulty and rng.random() < 0.3):
                continue
            observation, version, spec, status = world.look(), world.version, world.spec, world.status
            world.faults_seen = world.faults
            decision = decide(spec, status, observation, world.now)
            rows[decision.row] += 1
            assert decision.row != 42, (world.status, observation)
            if world.faulty and operator == 0 and rng.random() < 0.3:
                world.tick()  # and so the decision is of an old observation
                world.fault()
            die_at = rng.randrange(4) if world.faulty and rng.random() < 0.3 else None
            try:
                world.apply(decision, observation, version, die_at)
            except Stopped:
                continue
    return world


SEEDS = int(os.environ.get("PERDURE_SEEDS", "60"))
PARTS = 5


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_breaks_a_run_ends_or_lives_under_one_holder(part: int) -> None:
    rows: Counter[int] = Counter()
    for seed in range(part, SEEDS, PARTS):
        try:
            world = live_through(seed, rows)
            assert settled(world), ("stuck", world.status, world.look())
            check_end(world)
        except AssertionError as error:
            error.add_note(f"seed {seed}")
            raise
    assert rows[41] > 0
    if os.environ.get("PERDURE_SEEDS"):
        print(sorted(rows.items()))


def check_end(world: World) -> None:
    done = world.status.condition("Finished")
    if world.status.completion_time is None or world.gone:
        return
    assert done is not None
    assert done.status == "True"
    assert world.status.phase in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)
    if world.held is not None and world.held.outcome is not None and not world.wiped:
        succeeded = world.status.condition("Succeeded")
        assert succeeded is not None
        assert succeeded.reason == json.loads(world.held.outcome)["reason"]
