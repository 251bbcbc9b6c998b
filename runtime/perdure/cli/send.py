"""`perdure send`: an event from a shell to a run."""

from __future__ import annotations

import json
from pathlib import Path

from perdure.cli.errors import UsageError
from perdure.cli.place import find
from perdure.cli.target import parse_fields
from perdure.control.outcome import decode_outcome
from perdure.errors import RunEndedError, StateLostError
from perdure.inbox import message, send_message
from perdure.naming import check_run_id


async def send(
    name: str,
    event_type: str,
    fields: str,
    root: Path,
    redis_url: str | None,
    namespace: str,
    *,
    event_id: str | None,
) -> str:
    """Send it; what to tell the user. Raises UsageError, LocalError, InboxFullError."""
    data = json.dumps(parse_fields(fields, "the event", f"{event_type}'s"), ensure_ascii=False).encode()
    try:
        check_run_id(name)
        sent = message(event_type, data, event_id)
    except ValueError as error:
        raise UsageError(str(error)) from error
    async with find(name, root, redis_url, namespace) as place:
        try:
            waiting = await send_message(place.store.run(place.namespace, place.uid), name, sent)
        except RunEndedError as error:
            reason = decode_outcome(error.outcome).reason
            raise UsageError(f"run '{name}' has ended ({reason}) and takes no events") from error
        except StateLostError as error:
            raise UsageError(str(error)) from error
    if waiting == 0:
        return f"Run '{name}' had taken the event {sent.id} before: nothing was sent."
    return f"Sent to run '{name}' as event {sent.id}; {waiting} wait for it now."
