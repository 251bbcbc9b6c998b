"""Workflows that can't end well."""

from perdure import Workflow, step
from perdure.events import StartEvent, StopEvent


class Order(StartEvent):
    amount: int


class Raising(Workflow):
    @step
    async def charge(self, ev: Order) -> StopEvent:
        raise ValueError(f"card refused for {ev.amount}: " + "because " * 2000)


class NotAWorkflow:
    pass
