"""The name of an event from outside is looked up among the classes that are there; it imports nothing."""

import sys

import pytest
from pydantic import field_validator

from perdure import Context, Workflow, step
from perdure.errors import UnfitEventError
from perdure.events import Event, HumanResponseEvent, StartEvent, StopEvent
from perdure.inbox import event_of, message


class Taken(HumanResponseEvent):
    number: int = 0


class Guarded(HumanResponseEvent):
    code: str

    @field_validator("code")
    @classmethod
    def right(cls, code: str) -> str:
        raise ValueError(f"{code} is not the code")


class Elsewhere:
    class Taken(Event):
        pass

    class Twice(Event):
        pass


class Twice(Event):
    pass


class Flow(Workflow):
    @step
    async def begin(self, ctx: Context, ev: StartEvent) -> StopEvent:
        return StopEvent()

    @step
    async def take(self, ev: Taken) -> StopEvent:
        return StopEvent()


def found(name: str, *awaited: str) -> type[Event]:
    return type(event_of(Flow(), awaited, message(name, b"{}"), 100))


def test_what_a_step_takes_goes_before_what_is_only_there():
    assert found("Taken") is Taken
    assert found(f"{__name__}.Elsewhere.Taken") is Elsewhere.Taken


def test_what_a_step_waits_for_goes_before_another_of_that_name():
    with pytest.raises(UnfitEventError, match=r"ambiguous: name one of .*Elsewhere.Twice, .*Twice"):
        found("Twice")
    assert found("Twice", f"{__name__}.Elsewhere.Twice") is Elsewhere.Twice


def test_a_module_may_be_divided_from_the_class_by_a_colon():
    assert found(f"{__name__}:Taken") is Taken


def test_a_name_from_outside_imports_nothing():
    assert "antigravity" not in sys.modules
    with pytest.raises(UnfitEventError, match="no event type"):
        found("antigravity:Fly")
    assert "antigravity" not in sys.modules


def test_one_that_is_too_large_is_not_even_read():
    with pytest.raises(UnfitEventError, match="101 bytes, more than the 100"):
        event_of(Flow(), (), message("Taken", b"x" * 101), 100)


def test_what_a_validator_says_of_a_value_is_not_repeated() -> None:
    with pytest.raises(UnfitEventError, match="Guarded: code: refused by its validator") as caught:
        event_of(Flow(), (), message("Guarded", b'{"code": "s3cret"}'), 100)
    assert "s3cret" not in str(caught.value)
