"""A run's state from its snapshot and its log, checked against the code that is there."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from perdure.context.serializers import BaseSerializer, JsonSerializer, PickleSerializer
from perdure.context.state_store import InMemoryStateStore
from perdure.engine.model import FORMAT, Begin, Codec, State
from perdure.engine.reduce import reduce
from perdure.engine.values import restore
from perdure.errors import CheckpointCorruptError, IncompatibleError
from perdure.unreadable import read_back
from perdure.workflow import Workflow


def read_snapshot(workflow: Workflow[Any], codec: Codec, snapshot: bytes) -> State:
    """Raises CheckpointCorruptError, and IncompatibleError when this code isn't that of the snapshot."""
    state = codec.decode_state(snapshot)
    if state.format > FORMAT:
        raise IncompatibleError(
            f"the snapshot has format {state.format}, this Perdure reads {FORMAT}: run the version that wrote it"
        )
    _check_shape(workflow, state.graph)
    return state


def fold_records(
    workflow: Workflow[Any], codec: Codec, state: State, records: Iterable[tuple[int, bytes]]
) -> None:
    """Apply the ticks of `records`, each with its number, to `state`. Raises as `read_snapshot`."""
    for seq, payload in records:
        for tick in codec.decode_ticks(payload):
            if isinstance(tick, Begin):
                _check_shape(workflow, tick.graph)
            try:
                reduce(workflow._graph, state, tick)
            except KeyError as error:
                raise CheckpointCorruptError(
                    f"record {seq} of the log doesn't follow from those before: {error!r}"
                ) from error


def live_store(workflow: Workflow[Any], state: State, serializer: BaseSerializer) -> InMemoryStateStore[Any]:
    """The state's values as the live objects that steps see."""
    values = {
        key: restore(value, functools.partial(read_back, serializer, what=f"the state's {key!r}"))
        for key, value in state.store.items()
    }
    return InMemoryStateStore.restore(workflow._state_type, values)


def serializer_of(workflow: Workflow[Any], kind: str) -> BaseSerializer:
    """The workflow's own serializer, if it is another than JSON; else the one that the run asks for."""
    if workflow._given_serializer is not None and not isinstance(workflow._given_serializer, JsonSerializer):
        return workflow._given_serializer
    return PickleSerializer() if kind == "Pickle" else workflow.serializer


def _check_shape(workflow: Workflow[Any], logged: dict[str, str]) -> None:
    present = workflow._graph.shape
    if logged == present:
        return
    changes = [f"{name} is gone" for name in sorted(set(logged) - set(present))]
    changes += [f"{name} is new" for name in sorted(set(present) - set(logged))]
    changes += [
        f"{name} was {logged[name]} and is {present[name]}"
        for name in sorted(set(logged) & set(present))
        if logged[name] != present[name]
    ]
    raise IncompatibleError(
        f"the steps of {workflow.workflow_name} aren't those of the run's log: {'; '.join(changes)}. Run the code "
        f"that began this run, or start a new one"
    )
