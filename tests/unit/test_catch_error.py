"""Steps that take other steps' failures."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from virtual_time import run_to_end as run

from perdure import Context, Workflow, catch_error, step
from perdure.errors import WorkflowValidationError
from perdure.events import Event, StartEvent, StepFailedEvent, StopEvent, WorkflowFailedEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_none


async def result(workflow: Workflow[Any], **fields: Any) -> Any:
    return await workflow.run(**fields)


class Item(Event):
    number: int = 0


class Other(Event):
    number: int = 0


class Fails(Workflow):
    @step
    async def begin(self, ev: StartEvent) -> Item:
        return Item(number=3)

    @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
    async def work(self, ev: Item) -> StopEvent:
        raise LookupError(f"item {ev.number}")


def test_a_handler_is_told_what_failed_when_and_how_often_and_its_stop_event_is_the_end() -> None:
    class Caught(Fails):
        @catch_error
        async def mend(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=ev)

    async def go() -> tuple[Any, list[type[Event]]]:
        handler = Caught().run()
        return await handler, [type(event) async for event in handler.stream_events()]

    event, shown = run(go())
    assert (event.step_name, event.input_event, event.attempts) == ("work", Item(number=3), 2)
    assert str(event.exception) == "item 3"
    assert event.elapsed_seconds >= 0
    assert event.failed_at.utcoffset() == datetime.timedelta(0)
    assert shown == [StopEvent], "a failure that was recovered from is not published"


def test_the_handler_of_a_step_goes_before_the_handler_of_all() -> None:
    class Caught(Fails):
        @catch_error
        async def every(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result="every")

        @catch_error(for_steps=["work"])
        async def mine(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result="mine")

    assert run(result(Caught())) == "mine"


def test_a_handler_that_fails_fails_the_run_with_its_own_error() -> None:
    class Caught(Fails):
        @catch_error
        async def mend(self, ev: StepFailedEvent) -> StopEvent:
            raise ValueError("mine") from ev.exception

    async def go() -> Any:
        handler = Caught().run()
        with pytest.raises(ValueError, match="mine"):
            await handler
        return handler.get_stop_event()

    event = run(go())
    assert isinstance(event, WorkflowFailedEvent)
    assert event.step_name == "mend"


class Loops(Workflow):
    """Its recoveries lead back to the step that fails; `max_recoveries` of them."""

    @step
    async def begin(self, ev: StartEvent) -> Item:
        return Item(number=0)

    @step
    async def work(self, ev: Item) -> StopEvent:
        raise LookupError(f"after {ev.number}")


@pytest.mark.parametrize("how", ["returned", "sent"])
@pytest.mark.parametrize("times", [1, 3])
def test_the_budget_is_of_one_line_of_events_returned_or_sent(how: str, times: int) -> None:
    class Caught(Loops):
        @catch_error(max_recoveries=times)
        async def mend(self, ctx: Context, ev: StepFailedEvent) -> Item | None:
            again = Item(number=ev.input_event.number + 1)  # type: ignore[attr-defined]
            if how == "returned":
                return again
            ctx.send_event(again)
            return None

    with pytest.raises(LookupError, match=f"after {times}"):
        run(result(Caught()))


def test_each_line_has_its_own_budget() -> None:
    class Many(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(number=n) for n in range(5)]

        @step
        async def work(self, ev: Item) -> Other:
            if ev.number < 10:
                raise LookupError
            return Other(number=ev.number)

        @catch_error
        async def mend(self, ev: StepFailedEvent) -> Item:
            return Item(number=ev.input_event.number + 10)  # type: ignore[attr-defined]

        @step
        async def end(self, ev: list[Other]) -> StopEvent:
            return StopEvent(result=sorted(e.number for e in ev))

    assert run(result(Many())) == [10, 11, 12, 13, 14]


def test_what_failed_and_became_none_leaves_its_list() -> None:
    class Many(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> list[Item]:
            return [Item(number=n) for n in range(3)]

        @step
        async def work(self, ev: Item) -> Other:
            if ev.number == 1:
                raise LookupError
            return Other(number=ev.number)

        @catch_error
        async def drop(self, ev: StepFailedEvent) -> None:
            return None

        @step
        async def end(self, ev: list[Other]) -> StopEvent:
            return StopEvent(result=sorted(e.number for e in ev))

    assert run(result(Many())) == [0, 2]


@pytest.mark.parametrize(
    "arguments", [{"max_recoveries": 0}, {"max_recoveries": True}, {"for_steps": "work"}]
)
def test_wrong_arguments_are_refused_where_they_stand(arguments: dict[str, Any]) -> None:
    with pytest.raises(WorkflowValidationError, match="@catch_error"):
        catch_error(**arguments)


def test_a_handler_takes_a_failure_and_nothing_else() -> None:
    with pytest.raises(WorkflowValidationError, match="StepFailedEvent"):

        class Wrong(Workflow):
            @catch_error
            async def mend(self, ev: Item) -> StopEvent:
                return StopEvent()


def test_a_resource_that_cannot_be_made_is_a_failure_of_its_step() -> None:
    from typing import Annotated

    from perdure.resource import Resource

    made = []

    def get_value() -> int:
        made.append(1)
        raise ConnectionError("no database")

    class Needs(Workflow):
        @step(retry_policy=retry_policy(wait=wait_none(), stop=stop_after_attempt(2)))
        async def only(self, ev: StartEvent, value: Annotated[int, Resource(get_value)]) -> StopEvent:
            return StopEvent()

        @catch_error
        async def mend(self, ev: StepFailedEvent) -> StopEvent:
            return StopEvent(result=(str(ev.exception), ev.attempts, len(made)))

    assert run(result(Needs())) == ("no database", 2, 2)


def test_a_config_that_cannot_be_read_is_refused_at_the_first_run() -> None:
    from typing import Annotated

    from pydantic import BaseModel

    from perdure.resource import ResourceConfig

    class Settings(BaseModel):
        depth: int

    class Needs(Workflow):
        @step
        async def only(
            self, ev: StartEvent, s: Annotated[Settings, ResourceConfig("none.json")]
        ) -> StopEvent:
            return StopEvent()

    with pytest.raises(WorkflowValidationError, match="Resource config validation failed"):
        run(result(Needs()))
    assert Needs().validate(validate_resource_configs=False) is False
