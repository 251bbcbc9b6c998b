"""Workflows that end their process, or take their time when it is asked to end."""

import asyncio
import os
import sys
from pathlib import Path

from habits import Start, note

from perdure import Context, Workflow, step
from perdure.events import Event, StartEvent, StopEvent


class LeaveStart(StartEvent):
    notes: str
    how: str


class Leaves(Workflow):
    """Its first execution ends the process, or tries to, in one of many ways."""

    @step
    def work(self, ev: LeaveStart) -> StopEvent:
        again = Path(ev.notes).exists()
        note(ev.notes, "begin")
        if not again:
            match ev.how:
                case "SystemExit":
                    sys.exit(75)
                case "KeyboardInterrupt":
                    raise KeyboardInterrupt
                case code:
                    os._exit(int(code))
        return StopEvent(result="at the second time")


class Next(Event):
    of: str


class Slow(Event):
    pass


class Busy(Workflow):
    """One step on its way to a commit, one to its return, one that needs longer than there is."""

    @step
    async def split(self, ctx: Context, ev: Start) -> Next | None:
        await ctx.store.set("notes", ev.notes)
        for name in ("commits", "returns", *(["lasts"] if ev.count else [])):
            ctx.send_event(Next(of=name))
        return None

    @step(num_workers=3)
    async def work(self, ctx: Context, ev: Next) -> Slow | None:
        notes = await ctx.store.get("notes")
        if await ctx.store.get("again", default=False):
            note(notes, f"{ev.of} again")
            return Slow()
        note(notes, f"{ev.of} begins")
        try:
            await asyncio.sleep(60 if ev.of == "lasts" else 1.5)
            if ev.of == "commits":
                await ctx.store.set("commits", "so far")
                note(notes, "commits went on")
            note(notes, f"{ev.of} ends")
        except asyncio.CancelledError:
            note(notes, f"{ev.of} cancelled")
            raise
        return Slow()

    @step
    async def after(self, ctx: Context, ev: Slow) -> StopEvent | None:
        note(await ctx.store.get("notes"), "after")
        found = ctx.collect_events(ev, [Slow] * 2)
        return StopEvent(result=await ctx.store.get("commits", default=None)) if found else None
