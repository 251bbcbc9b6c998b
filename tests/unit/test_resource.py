"""Resources: made once or each time, from others, and never in a circle."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, ValidationError

from perdure.decorators import make_step_function
from perdure.errors import WorkflowValidationError
from perdure.events import Event
from perdure.resource import Resource, ResourceConfig, ResourceDescriptor, ResourceManager

made: list[str] = []


class Begin(Event):
    pass


class Client:
    pass


@pytest.fixture(autouse=True)
def forget() -> None:
    made.clear()


def client(*args: Any, **kwargs: Any) -> Client:
    made.append("client")
    assert (args, kwargs) == ((), {})
    return Client()


def limit(n: int = 3) -> int:
    return n


async def session(
    client: Annotated[Client, Resource(client)], limit: Annotated[int, Resource(limit)]
) -> tuple[Client, int]:
    made.append("session")
    await asyncio.sleep(0)
    return client, limit


def fresh() -> object:
    made.append("fresh")
    return object()


def left(fresh: Annotated[object, Resource(fresh, cache=False)]) -> object:
    return fresh


def right(fresh: Annotated[object, Resource(fresh, cache=False)]) -> object:
    return fresh


async def broken() -> None:
    made.append("broken")
    raise ConnectionError("refused")


def resolve(manager: ResourceManager, func: Any) -> dict[str, Any]:
    return asyncio.run(manager.resolve(make_step_function(func)._step_config.resources))


async def two(
    ev: Begin,
    a: Annotated[Client, Resource(client)],
    b: Annotated[tuple[Client, int], Resource(session)],
) -> None: ...


async def uncached(
    ev: Begin,
    a: Annotated[object, Resource(left, cache=False)],
    b: Annotated[object, Resource(right, cache=False)],
) -> None: ...


def test_a_resource_is_made_once_for_all_steps_and_from_others() -> None:
    manager = ResourceManager()
    values = resolve(manager, two)
    assert values["b"] == (values["a"], 3)
    assert resolve(manager, two) == values
    assert made == ["client", "session"]
    assert manager.get_all() == {"client": values["a"], "session": values["b"], "limit": 3}


def test_steps_that_ask_at_once_get_the_same_value() -> None:
    manager = ResourceManager()

    async def ask() -> list[Any]:
        return await asyncio.gather(*(manager.get(Resource(session)) for _ in range(5)))

    values = asyncio.run(ask())
    assert made == ["client", "session"]
    assert all(value is values[0] for value in values)


def test_an_uncached_resource_is_new_for_each_execution_and_shared_within_it() -> None:
    manager = ResourceManager()
    first, second = resolve(manager, uncached), resolve(manager, uncached)
    assert first["a"] is first["b"]
    assert first["a"] is not second["a"]
    assert made == ["fresh", "fresh"]


def test_a_value_set_by_hand_takes_the_factorys_place() -> None:
    manager = ResourceManager()
    asyncio.run(manager.set("client", "mine"))
    assert resolve(manager, two)["a"] == "mine"
    assert made == ["session"]


def test_a_factory_that_fails_is_asked_again_the_next_time() -> None:
    manager = ResourceManager()
    for _ in range(2):
        with pytest.raises(ConnectionError, match="refused"):
            asyncio.run(manager.get(Resource(broken)))
    assert made == ["broken", "broken"]
    assert manager.get_all() == {}


def test_a_step_that_is_cancelled_does_not_take_the_value_from_others() -> None:
    async def ask() -> Any:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slow() -> str:
            begun.set()
            await go.wait()
            return "value"

        manager = ResourceManager()
        first = asyncio.create_task(manager.get(Resource(slow)))
        await begun.wait()
        second = asyncio.create_task(manager.get(Resource(slow)))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        go.set()
        return await second

    assert asyncio.run(ask()) == "value"


def chicken(x: Annotated[int, Resource(lambda: 0)]) -> int:
    return x


def egg(x: Annotated[int, Resource(chicken)]) -> int:
    return x


def circle() -> tuple[Resource[int], Resource[int]]:
    first, second = Resource(chicken), Resource(egg)
    first._dependencies = [("x", second, int)]
    second._dependencies = [("x", first, int)]
    return first, second


def test_a_circle_is_named() -> None:
    first, _ = circle()
    with pytest.raises(ValueError, match="Circular resource dependency detected: chicken -> egg -> chicken"):
        asyncio.run(ResourceManager().get(first))


def test_the_two_halves_of_a_circle_asked_at_once_do_not_wait_for_each_other() -> None:
    manager = ResourceManager()

    async def ask() -> list[Any]:
        both = asyncio.gather(*(manager.get(half) for half in circle()), return_exceptions=True)
        return await asyncio.wait_for(both, 5)

    assert [type(answer) for answer in asyncio.run(ask())] == [ValueError, ValueError]


def test_a_local_factory_finds_local_names() -> None:
    class Local:
        pass

    def source() -> Local:
        return Local()

    def wrapped(inner: Annotated[Local, Resource(source)]) -> Local:
        return inner

    def build() -> Any:
        from perdure.decorators import step

        class W:
            @step
            async def s(self, ev: Begin, r: Annotated[Local, Resource(wrapped)]) -> None: ...

        return W.s

    # The name is one of this function's, which is on the stack while the step is decorated.
    resources = build()._step_config.resources
    assert isinstance(asyncio.run(ResourceManager().resolve(resources))["r"], Local)


def test_a_return_that_only_type_checkers_know_is_not_read() -> None:
    def factory(n: Annotated[int, Resource(limit)]) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        return n

    assert asyncio.run(ResourceManager().get(Resource(factory))) == 3


def test_a_class_or_a_callable_object_may_be_the_factory() -> None:
    class Service:
        def __init__(self, n: Annotated[int, Resource(limit)]) -> None:
            self.n = n

    class Maker:
        def __call__(self, n: Annotated[int, Resource(limit)]) -> int:
            return n + 1

    manager = ResourceManager()
    assert asyncio.run(manager.get(Resource(Service))).n == 3
    assert asyncio.run(manager.get(Resource(Maker()))) == 4


def test_a_name_missing_in_a_factory_is_named() -> None:
    def factory(x: Annotated[Nowhere, Resource(limit)]) -> int:  # type: ignore[name-defined]  # noqa: F821
        return 1

    with pytest.raises(WorkflowValidationError, match="'Nowhere'"):
        asyncio.run(ResourceManager().get(Resource(factory)))


def test_a_factorys_annotation_means_what_its_own_module_says() -> None:
    """A name that the step's surroundings have too, for something else, hides none of the factory's."""

    def factory(x: Annotated[Limits, Resource(limit)]) -> int:
        return x  # type: ignore[return-value]

    resource = Resource(factory)
    resource.localns = {"Limits": 1, "Annotated": list, "local": 2}
    (needed,) = resource.dependencies()
    assert needed[2] is Limits


class Limits(BaseModel):
    depth: int


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"depth": 1, "inner": {"limits": {"depth": 2}}, "list": [1]}))
    return str(path)


def test_a_config_is_the_annotated_model(config: str) -> None:
    async def load(selector: str | None) -> Any:
        return await ResourceManager().get(ResourceConfig(config, selector), Limits)

    assert asyncio.run(load(None)) == Limits(depth=1)
    assert asyncio.run(load("inner.limits")) == Limits(depth=2)
    assert isinstance(ResourceConfig(config), ResourceDescriptor)


def test_a_relative_config_is_the_one_of_the_present_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for depth in (1, 2):
        (tmp_path / str(depth)).mkdir()
        (tmp_path / str(depth) / "config.json").write_text(json.dumps({"depth": depth}))
        monkeypatch.chdir(tmp_path / str(depth))
        assert ResourceConfig("config.json").load(Limits) == Limits(depth=depth)


def test_one_file_read_as_two_models_gives_both(config: str) -> None:
    class Other(BaseModel):
        list: Any

    async def both() -> list[Any]:
        manager = ResourceManager()
        return [await manager.get(ResourceConfig(config), kind) for kind in (Limits, Other, Limits)]

    assert asyncio.run(both()) == [Limits(depth=1), Other(list=[1]), Limits(depth=1)]


@pytest.mark.parametrize(
    ("selector", "message"),
    [("inner.nothing", "nothing at"), ("list", "holds a list"), ("depth.x", "nothing at")],
)
def test_a_selector_must_land_on_an_object(config: str, selector: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResourceConfig(config, selector).load(Limits)


def test_bad_configs_are_refused(config: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Only JSON files"):
        ResourceConfig("config.yaml")
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        ResourceConfig(str(tmp_path / "missing.json")).load(Limits)
    with pytest.raises(ValidationError):
        ResourceConfig(config, "inner").load(Limits)
    with pytest.raises(ValueError, match="needs a pydantic model"):
        ResourceConfig(config).load(int)
