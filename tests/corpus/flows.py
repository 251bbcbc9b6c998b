"""The workflows whose logs and snapshots lie in this folder. Change one, and the logs on file don't fit it any more."""

from __future__ import annotations

from pydantic import BaseModel

from perdure import Context, Workflow, catch_error, step
from perdure.events import (
    Event,
    HumanResponseEvent,
    InputRequiredEvent,
    StartEvent,
    StepFailedEvent,
    StopEvent,
)
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_fixed


class Folder(Event):
    name: str
    pages: int


class Page(Event):
    folder: str
    number: int


class Read(Event):
    folder: str
    number: int


class Summary(Event):
    folder: str
    total: int


class FansOut(Workflow):
    """Lists in lists, joined again; state written whole, appended to and deleted on the way."""

    @step
    async def folders(self, ctx: Context, ev: StartEvent) -> list[Folder]:
        await ctx.store.set("begun", {"by": "corpus", "deep": [1, {"two": None}]})
        await ctx.store.set("passing", "deleted later")
        return [Folder(name=f"folder-{n}", pages=n + 2) for n in range(ev.count)]

    @step(num_workers=2)
    async def pages(self, ctx: Context, folder: Folder) -> list[Page]:
        return [Page(folder=folder.name, number=n) for n in range(folder.pages)]

    @step(num_workers=4)
    async def read(self, ctx: Context, page: Page) -> Read:
        await ctx.store.append("read", f"{page.folder}/{page.number}")
        return Read(folder=page.folder, number=page.number)

    @step
    async def summarize(self, ctx: Context, pages: list[Read]) -> Summary:
        return Summary(folder=pages[0].folder, total=sum(page.number for page in pages))

    @step
    async def end(self, ctx: Context, summaries: list[Summary]) -> StopEvent:
        state = (await ctx.store.get_state()).to_dict()
        return StopEvent(
            result={
                "totals": {s.folder: s.total for s in sorted(summaries, key=lambda s: s.folder)},
                # A page whose step was cut off between its write and its end is there twice.
                "read": sorted(set(state["read"])),
                "begun": state["begun"],
            }
        )


class Question(InputRequiredEvent):
    about: str


class Answer(HumanResponseEvent):
    about: str
    text: str


class Part(Event):
    side: str


class Patient(Workflow):
    """Waits for people, one of whom is early; collects two parts; sends and publishes before it waits."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> None:
        ctx.send_event(Part(side="left"))
        ctx.write_event_to_stream(Question(about="shown"))

    @step
    async def pair(self, ctx: Context, part: Part) -> StopEvent | None:
        await ctx.store.set(f"seen.{part.side}", True)
        pair = ctx.collect_events(part, [Part, Part])
        if pair is None:
            ctx.send_event(Part(side="right"))
            return None
        first = await ctx.wait_for_event(
            Answer, waiter_event=Question(about="first"), requirements={"about": "first"}
        )
        second = await ctx.wait_for_event(Answer, requirements={"about": "second"}, timeout=None)
        return StopEvent(result=[first.text, second.text, [p.side for p in pair]])


class Stubborn(Workflow):
    """A step that fails and is tried again in a minute; another whose failure is taken by a handler."""

    @step(retry_policy=retry_policy(wait=wait_fixed(0.2), stop=stop_after_attempt(4)))
    async def tries(self, ctx: Context, ev: StartEvent) -> Part:
        await ctx.store.set("tries", await ctx.store.get("tries", default=0) + 1)
        if ctx.attempt < 2:
            raise ValueError(f"not yet, at try {ctx.attempt}")
        return Part(side="left")

    @step
    async def breaks(self, ctx: Context, part: Part) -> Folder:
        raise LookupError(part.side)

    @catch_error
    async def mend(self, ctx: Context, failed: StepFailedEvent) -> Folder:
        return Folder(name=f"{failed.step_name}: {failed.exception}", pages=1)

    @step
    async def end(self, ctx: Context, folder: Folder) -> StopEvent:
        return StopEvent(result=[folder.name, await ctx.store.get("tries") >= 3])


class Note(BaseModel):
    text: str


class Shape(Event):
    number: int


class Square(Shape):
    pass


class Shapes(Workflow):
    """Events and a value whose classes no step names, queued behind the one that is under way."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Shape | None:
        await ctx.store.set("note", Note(text="kept"))
        for number in range(4):
            ctx.send_event(Square(number=number))
        return None

    @step(num_workers=1, accept_event_subclasses=True)
    async def take(self, ctx: Context, shape: Shape) -> StopEvent | None:
        await ctx.store.set(f"seen.{shape.number}", type(shape).__name__)
        seen = await ctx.store.get("seen")
        note = await ctx.store.get("note")
        return StopEvent(result=[sorted(seen), seen["3"], note.text]) if len(seen) == 4 else None


class Pickles(Workflow):
    """State that JSON has no form for."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Part:
        await ctx.store.set("odd", {"set": {1, 2}, "complex": 3 + 4j})
        return Part(side="left")

    @step
    async def end(self, ctx: Context, part: Part) -> StopEvent:
        odd = await ctx.store.get("odd")
        return StopEvent(result=[sorted(odd["set"]), abs(odd["complex"])])


class Child(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Part:
        for number in range(3):
            await ctx.store.append("done", number)
        return Part(side=ev.side)

    @step
    async def end(self, ctx: Context, part: Part) -> StopEvent:
        return StopEvent(result=[part.side, sorted(set(await ctx.store.get("done")))])


class Family(Workflow):
    """A step that runs a workflow."""

    @step
    async def run_child(self, ctx: Context, ev: StartEvent) -> StopEvent:
        first = await Child().run(side="left", run_id="first")
        return StopEvent(result=[first, await Child().run(side="right")])


class Failed(Workflow):
    """Ends by its second step's failure; taken up again, that step finds the way open."""

    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> Part:
        await ctx.store.set("begun", True)
        return Part(side="left")

    @step
    async def end(self, ctx: Context, part: Part) -> StopEvent:
        if not await ctx.store.get("open", default=False):
            await ctx.store.set("open", True)
            raise LookupError("the way is shut")
        return StopEvent(result=[part.side, await ctx.store.get("begun")])
