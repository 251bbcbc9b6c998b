"""What a type checker makes of the authoring API: `R:` is the type that it reveals, `E:` the error it reports."""

from typing import Annotated, Any, reveal_type

from pydantic import BaseModel

from perdure import Context, Workflow, WorkflowHandler, catch_error, step
from perdure.collect import Collect, Take
from perdure.events import Event, HumanResponseEvent, StartEvent, StepFailedEvent, StopEvent
from perdure.resource import Resource
from perdure.retry_policy import (
    retry_if_exception_type,
    retry_policy,
    stop_after_attempt,
    wait_fixed,
    wait_random,
)
from perdure.testing import WorkflowTestRunner


class Count(BaseModel):
    number: int = 0


class Words(Event):
    number: int


class Answer(HumanResponseEvent):
    text: str


class Receipt(StopEvent):
    total: int


def get_prefix() -> str:
    return "n"


patient = retry_policy(
    retry=retry_if_exception_type(ValueError) | retry_if_exception_type((KeyError, OSError)),
    wait=wait_fixed(1) + wait_random(),
    stop=stop_after_attempt(3),
)


class Counts(Workflow[int]):
    @step
    async def begin(self, ctx: Context[Count], ev: StartEvent) -> list[Words]:
        reveal_type(ctx.store)  # R: perdure.context.state_store.InMemoryStateStore[authoring.Count]
        async with ctx.store.edit_state() as state:
            reveal_type(state)  # R: authoring.Count
            state.number = "one"  # E: Incompatible types in assignment
        reveal_type(await ctx.store.get_state())  # R: authoring.Count
        reveal_type(await ctx.wait_for_event(Answer))  # R: authoring.Answer
        reveal_type(ctx.collect_events(ev, [Words]))  # R: list[perdure.events.Event] | None
        reveal_type(ctx.to_dict())  # R: dict[str, str]
        reveal_type(ctx.retry_info().last_exception)  # R: Exception | None
        return [Words(number=1)]

    @step(num_workers=2, retry_policy=patient)
    def end(
        self,
        words: Annotated[list[Words], Collect(Take(2))],
        prefix: Annotated[str, Resource(get_prefix)],
    ) -> StopEvent:
        reveal_type(words)  # R: list[authoring.Words]
        return StopEvent(result=len(prefix))

    @catch_error(for_steps=["begin"])
    async def mend(self, ev: StepFailedEvent) -> StopEvent:
        reveal_type(ev.exception)  # R: Exception
        return StopEvent(result=0)


class Plain(Workflow):
    @step
    async def only(self, ctx: Context, ev: StartEvent) -> StopEvent:
        async with ctx.store.edit_state() as state:
            state.anything = 1
            reveal_type(state.anything)  # R: Any
        return StopEvent(result=ev.anything)


class Sells(Workflow[Receipt]):
    @step
    async def sell(self, ev: StartEvent) -> Receipt:
        return Receipt(total="much")  # E: Argument "total" to "Receipt" has incompatible type


def takes_any(workflow: Workflow) -> WorkflowHandler:
    return workflow.run()


async def main() -> None:
    reveal_type(Counts().run())  # R: perdure.handler.WorkflowHandler[int]
    reveal_type(await Counts().run(text="a b"))  # R: int
    reveal_type((await Sells().run()).total)  # R: int
    reveal_type(await Plain().run())  # R: Any
    wrong: str = await Counts().run()  # E: Incompatible types in assignment
    reveal_type(await takes_any(Counts()))  # R: Any
    handler = Counts().run(run_id="r")
    reveal_type(await handler.stop_event_result())  # R: perdure.events.StopEvent
    reveal_type(handler.get_stop_event())  # R: perdure.events.StopEvent | None
    async for event in handler.stream_events():
        reveal_type(event)  # R: perdure.events.Event
    context: Context[Count] = Context(Counts())
    reveal_type(context.store.state_type)  # R: type[authoring.Count]
    reveal_type(await Counts().run(ctx=context))  # R: int
    result: Any = (await WorkflowTestRunner(Counts()).run()).result
    Counts(timeout="soon")  # E: Argument "timeout" to "Counts" has incompatible type "str"
    print(wrong, result)
