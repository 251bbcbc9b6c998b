"""Events that come before anybody waits for them are kept, and bounded."""

from perdure import Context, Workflow, step
from perdure.engine.model import External, Payload, State, Unhandled
from perdure.engine.reduce import EARLY_BYTES, MAX_EARLY, reduce
from perdure.events import Event, StartEvent, StopEvent


class Answer(Event):
    number: int


class Asks(Workflow):
    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent(result=(await ctx.wait_for_event(Answer)).number)


def come(state: State, number: int, size: int = 1) -> list[Payload]:
    """An answer comes; those that are dropped for it."""
    payload = Payload(Answer(number=number), None, b"x" * size)
    commands = reduce(Asks()._graph, state, External(0.0, payload))
    assert all(isinstance(command, Unhandled) for command in commands)
    return [command.event for command in commands]


def test_the_oldest_goes_when_there_are_too_many_and_that_is_told():
    state = State()
    for number in range(MAX_EARLY):
        assert come(state, number) == []
    dropped = come(state, MAX_EARLY)
    assert [payload.event.number for payload in dropped] == [0]
    assert len(state.early) == MAX_EARLY


def test_they_are_bounded_in_bytes_but_the_last_is_always_kept():
    state = State()
    come(state, 1, EARLY_BYTES // 2)
    come(state, 2, EARLY_BYTES // 2)
    assert [payload.event.number for payload in come(state, 3, 1)] == [1]
    assert [payload.event.number for payload in come(state, 4, EARLY_BYTES + 1)] == [2, 3]
    assert [payload.event.number for payload in state.early] == [4]
