"""A workflow whose step runs others, and notes what it and they did and what of it was recorded."""

import asyncio

from habits import Start, note

from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent


class Told(Event):
    text: str


class Half(Event):
    pass


class Item(Event):
    number: int


class ChildStart(StartEvent):
    name: str
    notes: str
    pause: float
    depth: int = 0


async def do(what: str, start: Start | ChildStart) -> None:
    await asyncio.sleep(start.pause)
    note(start.notes, f"done {what}")


class TwoSteps(Workflow):
    """Its first step is recorded when the second one runs, the second when its parent has its result."""

    @step
    async def one(self, ctx: Context, ev: ChildStart) -> Half:
        await ctx.store.set("start", ev)
        if ev.depth:
            await TwoSteps().run(name=f"{ev.name}.inner", notes=ev.notes, pause=ev.pause, depth=ev.depth - 1)
            note(ev.notes, f"recorded {ev.name}.inner.two")
        await do(f"{ev.name}.one", ev)
        ctx.write_event_to_stream(Told(text=f"{ev.name} is half done"))
        return Half()

    @step
    async def two(self, ctx: Context, ev: Half) -> StopEvent:
        start = await ctx.store.get("start")
        note(start.notes, f"recorded {start.name}.one")
        await do(f"{start.name}.two", start)
        ctx.write_event_to_stream(Told(text=f"{start.name} is done"))
        return StopEvent(result=start.name)


class Gathers(Workflow):
    """Gets its events from its parent alone, and ends when it has five."""

    @step
    async def begin(self, ctx: Context, ev: ChildStart) -> Half | None:
        return None

    @step
    async def never(self, ev: Half) -> StopEvent:
        return StopEvent()

    @step
    async def take(self, ctx: Context, ev: Item) -> StopEvent | None:
        found = ctx.collect_events(ev, [Item] * 5)
        return StopEvent(result=sorted(item.number for item in found)) if found else None


class RunsChildren(Workflow):
    """One child after the other whose stream it passes on, some at once, and one that it sends to."""

    @step
    async def work(self, ctx: Context, ev: Start) -> StopEvent:
        given = {"notes": ev.notes, "pause": ev.pause}
        names = []
        for n in range(ev.count):
            child = TwoSteps().run(name=f"single{n}", **given)
            async for event in child.stream_events():
                if isinstance(event, Told):
                    ctx.write_event_to_stream(event)
            names.append(await child)
            note(ev.notes, f"recorded single{n}.two")
        several = [TwoSteps().run(name=f"several{n}", depth=1, **given) for n in range(ev.count)]
        for n, name in enumerate(await asyncio.gather(*several)):
            names.append(name)
            note(ev.notes, f"recorded several{n}.two")
        gathers = Gathers(disable_validation=True).run(name="gathers", **given)
        for n in range(5):
            await gathers.send_event(Item(number=n))
            await asyncio.sleep(ev.pause)
        return StopEvent(result=[names, await gathers])
