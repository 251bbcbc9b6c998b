"""The workflow whose run is in the files beside this one: its steps and events aren't changed."""

from pathlib import Path

from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent


class Piece(Event):
    number: int


class Done(Event):
    number: int


def note(text: str) -> None:
    with Path("executions").open("a") as file:
        file.write(f"{text}\n")


class Flow(Workflow):
    @step
    async def split(self, ev: StartEvent) -> list[Piece]:
        note("split")
        return [Piece(number=n) for n in range(40)]

    @step(num_workers=2)
    async def work(self, ctx: Context, ev: Piece) -> Done:
        note(str(ev.number))
        return Done(number=ev.number)

    @step
    async def end(self, ev: list[Done]) -> StopEvent:
        note("end")
        return StopEvent(result=sorted(done.number for done in ev))
