"""What is run in the simulation: each result is the same in any order of steps, so that it can be compared."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from perdure import Context, Workflow, catch_error, step
from perdure.events import Event, InputRequiredEvent, StartEvent, StepFailedEvent, StopEvent
from perdure.retry_policy import retry_policy, stop_after_attempt, wait_fixed

if TYPE_CHECKING:
    from simulation.world import World

SET = 3
TWICE = retry_policy(wait=wait_fixed(0.5), stop=stop_after_attempt(2))


class Begin(StartEvent):
    """count: how much of everything. odd: which of it fails."""

    count: int
    odd: int


class Item(Event):
    number: int


class Done(Event):
    number: int


class Left(Event):
    number: int


class Right(Event):
    number: int


class Levelled(Event):
    number: int


class Group(Event):
    numbers: list[int]


class Prompt(InputRequiredEvent):
    number: int


class Answer(Event):
    number: int


class Shown(Event):
    text: str


class Extra(Event):
    number: int


class Half(Event):
    side: str


class Simulated:
    """What steps do between their awaits: take time, write, and look whether they see what they wrote.

    free: steps whose executions are another set in each order; the others' are compared.
    """

    world: World
    free: frozenset[str] = frozenset()

    async def pause(self) -> None:
        await asyncio.sleep(self.world.pause())

    async def put(self, ctx: Context, key: str, value: Any) -> None:
        """Write what no other invocation writes."""
        await ctx.store.set(key, value)
        self.world.wrote(key, value)

    async def climb(self, ctx: Context, number: int, top: int) -> None:
        """Count to `top` in the state, from where a cut-off execution of this invocation came to."""
        key = f"climbed {number}"
        reached = await ctx.store.get(key, default=0)
        self.world.read(key, reached)
        for height in range(reached + 1, top + 1):
            await self.pause()
            await self.put(ctx, key, height)


class Fan(Simulated, Workflow):
    """A list, its items with retries, and the list's join."""

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        await self.put(ctx, "odd", ev.odd)
        await self.pause()
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=2, retry_policy=TWICE)
    async def work(self, ctx: Context, ev: Item) -> Done:
        await self.climb(ctx, ev.number, 2)
        if ctx.attempt == 0 and ev.number % 3 == await ctx.store.get("odd"):
            await ctx.store.append("tried", ev.number)
            raise LookupError
        await self.climb(ctx, ev.number, 4)
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
        heights = [await ctx.store.get(f"climbed {e.number}") for e in events]
        tried = await ctx.store.get("tried", default=[])
        return StopEvent(result=[sorted(e.number for e in events), heights, sorted(set(tried))])


class Sets(Simulated, Workflow):
    """Events sent one by one, collected in sets; some fail after they took or added."""

    free = frozenset({"start", "gather", "last"})  # those may not have ended when the run does

    @step
    async def start(self, ctx: Context, ev: Begin) -> None:
        await self.put(ctx, "groups", ev.count)
        await self.put(ctx, "odd", ev.odd)
        for n in range(ev.count * SET):
            ctx.send_event(Item(number=n))
            if n % 2:
                await self.put(ctx, "sent", n)

    @step(num_workers=3, retry_policy=TWICE)
    async def gather(self, ctx: Context, ev: Item) -> Group | None:
        await self.pause()
        found = ctx.collect_events(ev, [Item] * SET)
        await self.pause()
        if ctx.attempt == 0 and ev.number % 3 == await ctx.store.get("odd"):
            raise LookupError
        return Group(numbers=[e.number for e in found]) if found else None

    @step(num_workers=2)
    async def last(self, ctx: Context, ev: Group) -> StopEvent | None:
        await self.pause()
        groups = ctx.collect_events(ev, [Group] * await ctx.store.get("groups"))
        await self.pause()
        return StopEvent(result=sorted(n for g in groups for n in g.numbers)) if groups else None


class Asks(Simulated, Workflow):
    """Waits that are answered from outside, that nobody answers, and that just pass."""

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=2)
    async def ask(self, ctx: Context, ev: Item) -> Done:
        await self.climb(ctx, ev.number, 1)
        if ev.number % 3 == 2:
            await ctx.sleep(3.0)
            try:
                await ctx.wait_for_event(Answer, requirements={"number": ev.number}, timeout=2.0)
            except TimeoutError:
                return Done(number=-ev.number)
        answer = await ctx.wait_for_event(
            Answer,
            waiter_event=Prompt(number=ev.number),
            requirements={"number": ev.number},
            timeout=None,
        )
        self.world.answered(ctx, answer)
        await self.climb(ctx, ev.number, 2)
        return Done(number=answer.number)

    @step
    async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))


class Replies(Simulated, Workflow):
    """Waits that another step answers."""

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=2)
    async def ask(self, ctx: Context, ev: Item) -> Done:
        ctx.send_event(Extra(number=ev.number))
        answer = await ctx.wait_for_event(Answer, requirements={"number": ev.number}, timeout=None)
        if not self.world.relaxed:  # what other steps send may be at risk
            self.world.answered(ctx, answer)
        return Done(number=answer.number)

    @step(num_workers=2)
    async def reply(self, ctx: Context, ev: Extra) -> None:
        await self.pause()
        ctx.send_event(Answer(number=ev.number))
        await self.climb(ctx, ev.number, 1)

    @step
    async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))

    free = frozenset({"reply"})  # the last one may have answered and not ended when the run does


class Mends(Simulated, Workflow):
    """Steps that fail for good, and what recovers them."""

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        await self.put(ctx, "count", ev.count)
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=3, retry_policy=TWICE)
    async def work(self, ctx: Context, ev: Item) -> Done:
        await self.climb(ctx, ev.number, 1)
        if ev.number % 2:
            raise ValueError(f"{ev.number} is odd")
        return Done(number=ev.number)

    @catch_error(for_steps=["work"], max_recoveries=1)
    async def mend(self, ctx: Context, ev: StepFailedEvent) -> Done:
        await self.pause()
        return Done(number=100 + ev.input_event.number)

    @step(num_workers=2)
    async def join(self, ctx: Context, ev: Done) -> StopEvent | None:
        found = ctx.collect_events(ev, [Done] * await ctx.store.get("count"))
        await self.pause()
        return StopEvent(result=sorted(e.number for e in found)) if found else None

    free = frozenset({"mend", "join"})  # a failure's event has times in it


class Nested(Simulated, Workflow):
    """Lists in a list, joined by two parameters and level by level."""

    @step
    async def outer(self, ctx: Context, ev: Begin) -> list[Item]:
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=2)
    async def inner(self, ctx: Context, ev: Item) -> list[Left | Right]:
        await self.pause()
        return [Left(number=ev.number), Right(number=10 * ev.number)]

    @step(num_workers=2)
    async def pair(self, ctx: Context, left: Left, right: Right) -> Done:
        await self.climb(ctx, left.number, 2)
        return Done(number=left.number + right.number)

    @step
    async def level(self, ctx: Context, events: list[Done]) -> Levelled:
        await self.pause()
        return Levelled(number=sum(e.number for e in events))

    @step
    async def join(self, ctx: Context, events: list[Levelled]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))


class Shows(Simulated, Workflow):
    """Events for the stream, and ones that two steps accept."""

    free = frozenset({"tap", "also", "end"})

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        await self.put(ctx, "count", ev.count)
        for n in range(3):
            ctx.write_event_to_stream(Shown(text=f"start {n}"))
            await self.put(ctx, "shown", n)
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=2)
    async def work(self, ctx: Context, ev: Item) -> Extra:
        ctx.write_event_to_stream(Shown(text=f"in {ev.number}"))
        async with ctx.store.edit_state() as state:
            state[f"edited {ev.number}"] = [ev.number]
        await ctx.store.extend(f"edited {ev.number}", [ev.number])
        ctx.write_event_to_stream(Shown(text=f"out {ev.number}"))
        await self.pause()
        return Extra(number=ev.number)

    @step(num_workers=2)
    async def tap(self, ctx: Context, ev: Extra) -> Half | None:
        await self.pause()
        found = ctx.collect_events(ev, [Extra] * await ctx.store.get("count"))
        await self.pause()
        return Half(side="left") if found else None

    @step
    async def also(self, ctx: Context, ev: Extra) -> Half | None:
        found = ctx.collect_events(ev, [Extra] * await ctx.store.get("count"))
        await self.pause()
        return Half(side="right") if found else None

    @step
    async def end(self, ctx: Context, ev: Half) -> StopEvent | None:
        found = ctx.collect_events(ev, [Half] * 2)
        return StopEvent(result=sorted(e.side for e in found)) if found else None


class Pairs(Simulated, Workflow):
    """Two waits of one step at once: both answered from outside, or one that nobody answers."""

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=2)
    async def ask(self, ctx: Context, ev: Item) -> Done:
        await self.climb(ctx, ev.number, 1)
        answers = await asyncio.gather(
            self.answer(ctx, ev.number, Prompt(number=ev.number), None),
            self.answer(ctx, 10 + ev.number, None, 2.0)
            if ev.number % 3 == 2
            else self.answer(ctx, 10 + ev.number, Prompt(number=10 + ev.number), None),
        )
        await self.climb(ctx, ev.number, 2)
        return Done(number=sum(answers))

    async def answer(self, ctx: Context, number: int, prompt: Prompt | None, timeout: float | None) -> int:
        try:
            answer = await ctx.wait_for_event(
                Answer, waiter_event=prompt, requirements={"number": number}, timeout=timeout
            )
        except TimeoutError:
            return -number
        self.world.answered(ctx, answer)
        return answer.number

    @step
    async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
        return StopEvent(result=sorted(e.number for e in events))


class Inner(Simulated, Workflow):
    """A child: its state and its log are in its parent's, so it tells what must hold of them itself."""

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        self.world.child_begins(f"{ev.odd} start")
        await self.pause()
        return [Item(number=10 * ev.odd + n) for n in range(ev.count)]

    @step(num_workers=2, retry_policy=TWICE)
    async def work(self, ctx: Context, ev: Item) -> Done:
        self.world.child_ended(f"{ev.number // 10} start")
        self.world.child_begins(f"work {ev.number}")
        await self.climb(ctx, ev.number, 2)
        if ev.number % 10 == 0:
            await ctx.sleep(1.0)
        if ev.number % 10 == 1:
            answer = await ctx.wait_for_event(
                Answer,
                waiter_event=Prompt(number=ev.number),
                requirements={"number": ev.number},
                timeout=None,
            )
            await self.put(ctx, f"answer {ev.number}", answer.number)
            if ctx.attempt == 0:
                raise LookupError
        await self.climb(ctx, ev.number, 3)
        return Done(number=ev.number)

    @step
    async def join(self, ctx: Context, events: list[Done]) -> StopEvent:
        for event in events:
            self.world.child_ended(f"work {event.number}")
        heights = [await ctx.store.get(f"climbed {e.number}") for e in events]
        return StopEvent(result=[sorted(e.number for e in events), heights])

    async def put(self, ctx: Context, key: str, value: Any) -> None:
        await ctx.store.set(key, value)
        self.world.child_wrote(key, value)

    async def climb(self, ctx: Context, number: int, top: int) -> None:
        key = f"climbed {number}"
        reached = await ctx.store.get(key, default=0)
        self.world.child_read(key, reached)
        for height in range(reached + 1, top + 1):
            await self.pause()
            await self.put(ctx, key, height)


class Parents(Simulated, Workflow):
    """Child workflows, one by one and two at once, whose questions their step passes on."""

    @step
    async def start(self, ctx: Context, ev: Begin) -> list[Item]:
        return [Item(number=n) for n in range(ev.count)]

    @step(num_workers=2)
    async def call(self, ctx: Context, ev: Item) -> Group:
        await self.climb(ctx, ev.number, 1)
        results = (
            [await self.child(ctx, 2 * ev.number)]
            if ev.number % 2
            else await asyncio.gather(self.child(ctx, 2 * ev.number), self.child(ctx, 2 * ev.number + 1))
        )
        await self.climb(ctx, ev.number, 2)
        return Group(numbers=[number for result in results for numbers in result for number in numbers])

    async def child(self, ctx: Context, number: int) -> list[list[int]]:
        inner = Inner()
        inner.world = self.world
        handler = inner.run(start_event=Begin(count=2, odd=number))
        async for event in handler.stream_events():
            if isinstance(event, Prompt):
                answer = await ctx.wait_for_event(
                    Answer, waiter_event=event, requirements={"number": event.number}, timeout=None
                )
                self.world.answered(ctx, answer)
                await handler.send_event(answer)
        return await handler

    @step
    async def join(self, ctx: Context, events: list[Group]) -> StopEvent:
        return StopEvent(result=sorted(e.numbers for e in events))


WORKFLOWS: tuple[type[Any], ...] = (Fan, Sets, Asks, Replies, Mends, Nested, Shows, Pairs, Parents)
