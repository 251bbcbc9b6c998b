"""Events from outside a run: by whom they are sent, how they are kept, and what makes them events again."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from perdure.engine.model import State
from perdure.errors import InboxFullError, RunEndedError, StateLostError, StoreError, UnfitEventError
from perdure.events import Event
from perdure.naming import check_run_id, qualified_name
from perdure.store.base import INBOX_BYTES, Message, RunStore, Store, Tag
from perdure.unreadable import what_is_wrong

if TYPE_CHECKING:
    from perdure.run import Run
    from perdure.store.session import RunSession
    from perdure.workflow import Workflow

log = logging.getLogger("perdure.inbox")

MAX_ID = 256  # characters of a sender's id for its event
READ_AT_ONCE = 100  # events
# Of `maxBytes`, for the events of one commit and for those that are queued: what others send must not
# be what makes a record or a snapshot too large.
PART = 1 / 4
QUEUE_PAUSE = 0.05  # seconds, while that much is queued


async def send_event(store: Store, run_id: str, event: Event, *, event_id: str | None = None) -> int:
    """Send `event` to a durable run of this host's programs or laptop, live or waiting to be resumed.

    event_id: for senders that repeat: a run takes an event once per id. Returns how many events wait
    for the run now, 0 when it had taken this id before. Raises InboxFullError, RunEndedError,
    StateLostError (no such run), ValueError, and the store's errors.
    """
    check_run_id(run_id)
    data = json.dumps(event.model_dump(mode="json"), ensure_ascii=False).encode()
    kind = qualified_name(type(event))
    return await send_message(store.run("local", run_id), run_id, message(kind, data, event_id))


def message(kind: str, data: bytes, event_id: str | None = None) -> Message:
    """An event for the inbox; without an id of its sender's it gets one. Raises ValueError."""
    event_id = secrets.token_hex(16) if event_id is None else event_id
    if not 0 < len(event_id) <= MAX_ID or not event_id.isprintable():
        raise ValueError(f"an event's id has 1 to {MAX_ID} printable characters, not {event_id[:40]!r}")
    if len(data) > INBOX_BYTES:
        raise ValueError(
            f"the event has {len(data)} bytes, an inbox takes {INBOX_BYTES} in all: keep the value elsewhere and "
            "send its name"
        )
    return Message(event_id, kind, data)


async def send_message(run: RunStore, name: str, sent: Message) -> int:
    """As `send_event`; `name` is the run's, for what is raised."""
    answer = await run.send(sent)
    if answer.tag is Tag.FULL:
        raise InboxFullError(
            f"{answer.number} events wait for run {name}, and its inbox takes no more: send again when the run has "
            "taken some, or resume it if it isn't running"
        )
    if answer.tag is Tag.OUTCOME:
        raise RunEndedError(answer.data)
    if answer.tag is Tag.NOMETA:
        raise StateLostError(f"the store knows no run {name}: it was never begun here, or it was removed")
    return answer.number


def event_of(workflow: Workflow[Any], awaited: Collection[str], sent: Message, limit: int) -> Event:
    """The event that `sent` names and fills.

    awaited: qualified names of the types that steps wait for now. limit: of its data, in bytes.

    Raises UnfitEventError, which tells nothing of the values.
    """
    if len(sent.data) > limit:
        raise UnfitEventError(
            f"it has {len(sent.data)} bytes, more than the {limit} that checkpoint.maxBytes leaves it"
        )
    kind = _type_of(workflow, awaited, sent.kind)
    try:
        fields = json.loads(sent.data)
    except ValueError as error:
        raise UnfitEventError(f"its data is not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise UnfitEventError(
            f"its data is a JSON {type(fields).__name__}, not an object of {kind.__name__}'s fields"
        )
    try:
        return kind(**fields)
    except ValidationError as error:
        raise UnfitEventError(f"its data doesn't fit {kind.__name__}: {what_is_wrong(error)}") from None
    except Exception as error:  # what a class of the user's raises may repeat the values
        raise UnfitEventError(f"{kind.__name__} refuses its data: {type(error).__name__}") from error


def _type_of(workflow: Workflow[Any], awaited: Collection[str], name: str) -> type[Event]:
    """The loaded event class of that name, qualified or not.

    What a step takes goes first, then what one waits for, then what is beside the workflow, then the rest.

    A name from outside imports nothing.
    """
    wanted = name.replace(":", ".")
    taken = {kind for config in workflow._graph.configs.values() for kind in config.accepted_events}
    loaded = [kind for kind in _descendants(Event) if wanted in (kind.__name__, qualified_name(kind))]
    waited = [kind for kind in loaded if qualified_name(kind) in awaited]
    beside = [kind for kind in loaded if kind.__module__ == type(workflow).__module__]
    for found in ([kind for kind in loaded if kind in taken], waited, beside, loaded):
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(map(qualified_name, found)))
            raise UnfitEventError(f"the event type {name!r} is ambiguous: name one of {names}")
    known = ", ".join(sorted(kind.__name__ for kind in taken))
    raise UnfitEventError(f"no event type {name!r} is known to this workflow; its steps take {known}")


def _descendants(kind: type[Event]) -> set[type[Event]]:
    found: set[type[Event]] = set()
    for child in kind.__subclasses__():
        found |= {child, *_descendants(child)}
    return found


class Inbox:
    """Brings what lies in a run's inbox into its engine, in order; woken by what a renewal tells of it."""

    def __init__(self, session: RunSession, run: Run) -> None:
        self._session = session
        self._run = run
        self._taken = ""  # the inbox id of the last one
        self._reading: asyncio.Task[None] | None = None

    def look(self, last_id: str) -> None:
        """The last event in there has `last_id`; "" when there is none."""
        if last_id and last_id != self._taken:
            self.read()

    def read(self) -> None:
        """Take what is there, beside the run."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        loop = self._run.loop
        limit = int(self._session.max_bytes * PART)
        try:
            while not loop.stopped:
                found = await self._session.inbox(self._taken, READ_AT_ONCE)
                room = 0
                for position, sent in found:
                    if len(sent.data) > room:
                        room = await self._room(limit)
                    if loop.stopped or loop.state.draining:
                        return
                    self._run.receive(position, sent, limit)
                    self._taken = position
                    room -= len(sent.data)
                if len(found) < READ_AT_ONCE:
                    return
        except StoreError as error:
            if not loop.stopped:
                log.warning("the inbox can't be read; the next renewal of the lease tries again: %s", error)
        except Exception as error:  # the run's own end, which its other tasks hear of as well
            if not loop.stopped:
                loop.stop(None, error)

    async def _room(self, limit: int) -> int:
        """How many bytes of events may be taken now; waits until what is queued leaves some."""
        loop = self._run.loop
        while True:
            await loop.barrier(strict=True)
            if queued_bytes(loop.state) <= limit or loop.stopped or loop.state.draining:
                return limit
            await asyncio.sleep(QUEUE_PAUSE)


def queued_bytes(state: State) -> int:
    """Of the events for which no worker slot was free yet."""
    return sum(
        len(payload.data)
        for queue in state.steps.values()
        for number in queue.queued
        for payload in state.works[number].events
    )
