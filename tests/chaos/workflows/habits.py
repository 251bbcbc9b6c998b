"""Workflows with one habit each, which note in a file what they do and when."""

import asyncio
import re
import time
from pathlib import Path

from perdure import Context, Workflow, step
from perdure.events import Event, HumanResponseEvent, StartEvent, StopEvent


class Start(StartEvent):
    notes: str
    count: int = 20
    pause: float = 0.05


def note(path: str, what: str) -> None:
    with Path(path).open("a") as notes:
        notes.write(f"{time.monotonic():.4f} {what}\n")


class HoldsTheGil(Workflow):
    """A regular expression that needs longer than the universe has, and never lets go of the GIL."""

    @step
    async def hold(self, ev: Start) -> StopEvent:
        note(ev.notes, "begin")
        re.match(r"(a+)+$", "a" * 64 + "b")
        note(ev.notes, "survived")
        return StopEvent()


class NeverRests(Workflow):
    """A statement after the other, without an await, in a thread of its own."""

    @step
    def work(self, ev: Start) -> StopEvent:
        while True:
            note(ev.notes, "statement")
            time.sleep(0.01)


class NeverYields(Workflow):
    """As NeverRests, in the event loop's own thread, which gets to nothing else."""

    @step
    async def work(self, ev: Start) -> StopEvent:
        while True:
            note(ev.notes, "statement")
            time.sleep(0.01)  # noqa: ASYNC251 - that is the habit


class BlocksTheLoop(Workflow):
    """Blocks the event loop for long, and comes back."""

    @step
    async def block(self, ev: Start) -> StopEvent:
        note(ev.notes, "blocks")
        time.sleep(ev.pause)  # noqa: ASYNC251 - that is the habit
        return StopEvent()


class Counts(Workflow):
    """One write of state after the other."""

    @step
    async def count(self, ctx: Context, ev: Start) -> StopEvent:
        done = await ctx.store.get("done", default=0)
        while done < ev.count:
            await asyncio.sleep(ev.pause)
            note(ev.notes, f"effect {done}")
            done += 1
            await ctx.store.set("done", done)
            note(ev.notes, f"stored {done}")
        return StopEvent(result=done)


class Sleeps(Workflow):
    """All it does is wait inside the engine."""

    @step
    async def wait(self, ctx: Context, ev: Start) -> StopEvent:
        note(ev.notes, "begin")
        await ctx.sleep(ev.pause)
        note(ev.notes, "woke")
        return StopEvent(result="woke")


class Part(Event):
    number: int
    text: str


class Partly(Event):
    number: int


class FansOut(Workflow):
    """Many small steps at once; each records what it did, and does nothing that is recorded."""

    @step
    async def split(self, ctx: Context, ev: Start) -> list[Part]:
        await ctx.store.set("start", {"notes": ev.notes, "pause": ev.pause})
        return [Part(number=n, text="x" * 2000) for n in range(ev.count)]

    @step(num_workers=4)
    async def do(self, ctx: Context, part: Part) -> Partly:
        start = await ctx.store.get("start")
        if part.number not in await ctx.store.get("done", default=[]):
            await asyncio.sleep(start["pause"])
            note(start["notes"], f"done {part.number}")
            await ctx.store.append("done", part.number)
            note(start["notes"], f"recorded {part.number}")
        return Partly(number=part.number)

    @step
    async def join(self, ctx: Context, parts: list[Partly]) -> StopEvent:
        return StopEvent(result=sorted(part.number for part in parts))


class Parcel(HumanResponseEvent):
    number: int


class TakesParcels(Workflow):
    """Notes every event from outside under the key of the invocation that took it: a replay has the same."""

    @step
    async def open(self, ctx: Context, ev: Start) -> None:
        await ctx.store.set("count", ev.count)

    @step(num_workers=2)
    async def take(self, ctx: Context, parcel: Parcel) -> StopEvent | None:
        await ctx.store.set(f"taken.{ctx.idempotency_key}", parcel.number)
        await asyncio.sleep(0.002)
        taken = await ctx.store.get("taken")
        return (
            StopEvent(result=sorted(taken.values())) if len(taken) >= await ctx.store.get("count") else None
        )


class Hoards(Workflow):
    """A state that grows, so that its log is cut again and again."""

    @step
    async def hoard(self, ctx: Context, ev: Start) -> StopEvent:
        for n in range(ev.count):
            await ctx.store.set(f"item {n}", f"{n} " * 10_000)
            note(ev.notes, f"stored {n}")
            await asyncio.sleep(ev.pause)
        return StopEvent()
