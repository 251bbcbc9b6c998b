"""`ctx.store`: paths, editing, and that every change is told, in order, or taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import date
from functools import wraps
from threading import Lock
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from perdure.context.serializers import JsonSerializer
from perdure.context.state_store import (
    Change,
    DictState,
    InMemoryStateStore,
    StateStore,
    UnserializableKeyWarning,
)
from perdure.events import Event


class Note(Event):
    text: str = ""


class State(BaseModel):
    count: int = 0
    names: list[str] = []
    seen: set[str] = set()
    day: date | None = None
    anything: Any = None
    hidden: object = Field(default=None, exclude=True)


class Wider(State):
    more: int = 7


class Needy(BaseModel):
    must: int


class Handle:
    """Something that can't be copied."""

    def __init__(self) -> None:
        self.lock = Lock()


def run(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def inside(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return inside


class Log:
    """Takes changes as a durable store does: at once, encoded; folded they are the state."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.values: dict[str, Any] = {}
        self.refuse: Exception | None = None

    async def write(self, changes: Sequence[Change]) -> None:
        if self.refuse is not None:
            raise self.refuse
        texts = [(c.op, c.key, JsonSerializer().serialize(c.value)) for c in changes]
        self.changes += changes
        for op, key, text in texts:
            value = JsonSerializer().deserialize(text)
            if op == "delete":
                del self.values[key]
            elif op == "append":
                self.values[key] = [*self.values[key], *value]
            else:
                self.values[key] = value
        await asyncio.sleep(0)


def logged(state: BaseModel) -> tuple[InMemoryStateStore[Any], Log]:
    log = Log()
    store = InMemoryStateStore(state, write=log.write)
    log.values = JsonSerializer().deserialize(JsonSerializer().serialize(store.export()))
    return store, log


@run
async def test_dotted_paths_go_through_dicts_lists_and_attributes() -> None:
    store: StateStore[DictState] = InMemoryStateStore(DictState(docs=[{"name": "a"}], state=State(count=3)))
    assert await store.get("docs.0.name") == "a"
    assert await store.get("docs.-1.name") == "a"
    assert await store.get("state.count") == 3
    await store.set("docs.0.name", "b")
    await store.set("state.count", 4)
    await store.set("new.deep.key", 1)
    assert await store.get("docs") == [{"name": "b"}]
    assert await store.get("state.count") == 4
    assert await store.get("new") == {"deep": {"key": 1}}


@run
async def test_a_missing_path_needs_a_default() -> None:
    store = InMemoryStateStore(DictState(docs=[1]))
    for path in ("nothing", "docs.1", "docs.x", "docs.0.a", "items", "keys"):
        with pytest.raises(ValueError, match="not found"):
            await store.get(path)
        assert await store.get(path, None) is None
        assert await store.get(path, default=3) == 3


@run
async def test_a_path_that_cannot_be_set_is_refused() -> None:
    store, log = logged(DictState(docs=[1], state=State()))
    for path, message in [
        ("", "empty"),
        ("docs.4", "no index '4'"),
        ("docs.0.a", "int has no member 'a'"),
        ("state.nope", 'no field "nope"'),
        (".".join("a" * 1001), "1000"),
    ]:
        with pytest.raises(ValueError, match=message):
            await store.set(path, 1)
    with pytest.raises(ValueError, match="1000"):
        await store.get(".".join("a" * 1001))
    assert log.changes == []


@run
async def test_a_key_may_be_named_like_a_method() -> None:
    store = InMemoryStateStore(DictState())
    await store.set("items", 1)
    await store.set("keys.values", 2)
    assert await store.get("items") == 1
    assert await store.get("keys") == {"values": 2}


@run
async def test_append_makes_the_list_and_tells_only_what_is_new() -> None:
    store, log = logged(DictState())
    await store.append("docs", "a")
    await store.append("docs", "b", "c")
    await store.extend("docs", (str(n) for n in range(2)))
    assert await store.get("docs") == ["a", "b", "c", "0", "1"]
    assert log.changes == [
        Change("set", "docs", ["a", "b", "c", "0", "1"]),
        Change("append", "docs", ["b", "c"]),
        Change("append", "docs", ["0", "1"]),
    ]
    assert log.values == {"docs": ["a", "b", "c", "0", "1"]}


@run
async def test_append_below_a_key_tells_the_whole_key() -> None:
    store, log = logged(DictState(a={"b": [1]}))
    await store.append("a.b", 2)
    await store.append("a.c", 3)
    assert [(c.op, c.key) for c in log.changes] == [("set", "a"), ("set", "a")]
    assert log.values == {"a": {"b": [1, 2], "c": [3]}}
    with pytest.raises(ValueError, match="holds a dict, not a list"):
        await store.append("a", 1)


@run
async def test_edit_state_commits_at_its_end_and_readers_see_the_old_until_then() -> None:
    store, log = logged(DictState(docs=[1], count=1, gone=2))
    async with store.edit_state() as state:
        state["docs"].append(2)
        state["count"] = 5
        del state["gone"]
        assert await store.get("docs") == [1]
        assert await store.get("count") == 1
        assert log.changes == []
    assert log.changes == [
        Change("delete", "gone", None),
        Change("set", "docs", [1, 2]),
        Change("set", "count", 5),
    ]
    assert (await store.get_state()).to_dict() == {"docs": [1, 2], "count": 5}


@run
async def test_edit_state_leaves_nothing_when_it_raises() -> None:
    store, log = logged(State(names=["a"]))
    with pytest.raises(KeyError):
        async with store.edit_state() as state:
            state.names.append("b")
            state.count = 9
            raise KeyError
    assert await store.get_state() == State(names=["a"])
    assert log.changes == []
    await store.set("count", 1)


@run
async def test_other_writers_wait_for_an_open_edit() -> None:
    store, _ = logged(DictState(n=0))
    order: list[str] = []

    async def other() -> None:
        await store.set("n", 10)
        order.append("other")

    async with store.edit_state() as state:
        waiting = asyncio.create_task(other())
        for _ in range(3):
            await asyncio.sleep(0)
        state["n"] += 1
        order.append("edited")
    await waiting
    assert order == ["edited", "other"]
    assert await store.get("n") == 10


@run
async def test_edits_of_many_tasks_lose_nothing() -> None:
    store, log = logged(DictState(n=0))

    async def one() -> None:
        async with store.edit_state() as state:
            before = state["n"]
            await asyncio.sleep(0)
            state["n"] = before + 1

    await asyncio.gather(*(one() for _ in range(20)))
    assert await store.get("n") == 20
    assert log.values == {"n": 20}


@run
async def test_a_writer_inside_its_own_edit_is_an_error_and_not_a_deadlock() -> None:
    store = InMemoryStateStore(State())
    async with store.edit_state():
        for write in (
            store.set("count", 1),
            store.clear(),
            store.set_state(State()),
            store.append("names", "a"),
        ):
            with pytest.raises(RuntimeError, match="inside edit_state"):
                await write
        with pytest.raises(RuntimeError, match="inside edit_state"):
            async with store.edit_state():
                pass
    await store.set("count", 2)


@run
async def test_a_cancelled_edit_lets_others_go_on() -> None:
    store = InMemoryStateStore(DictState(n=0))

    async def edit() -> None:
        async with store.edit_state() as state:
            state["n"] = 1
            await asyncio.Event().wait()

    task = asyncio.create_task(edit())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(store.set("n", 2))
    await asyncio.sleep(0)
    task.cancel()
    await waiting
    assert await store.get("n") == 2


@run
async def test_an_edit_shares_what_cannot_be_copied_and_what_is_excluded() -> None:
    handle = Handle()
    hidden = ["x"]
    store = InMemoryStateStore(State(hidden=hidden, anything={"handle": handle, "list": [1]}))
    with pytest.raises(KeyError):
        async with store.edit_state() as state:
            assert state.anything["handle"] is handle
            assert state.hidden is hidden
            state.anything["list"].append(2)
            raise KeyError
    assert await store.get("anything.list") == [1]


@run
async def test_get_state_is_a_shallow_copy() -> None:
    store = InMemoryStateStore(State(names=["a"]))
    copied = await store.get_state()
    copied.count = 5
    copied.names.append("b")
    assert await store.get("count") == 0
    assert await store.get("names") == ["a", "b"]
    untyped = InMemoryStateStore(DictState(count=0))
    (await untyped.get_state())["count"] = 5
    assert await untyped.get("count") == 0


@run
async def test_set_state_merges_a_parent_and_refuses_a_stranger() -> None:
    store, log = logged(Wider(more=3))
    await store.set_state(State(count=2))
    assert await store.get_state() == Wider(count=2, more=3)
    assert [c.key for c in log.changes if c.key == "more"] == []
    for stranger in (Needy(must=1), DictState(count=1)):
        with pytest.raises(ValueError, match="Wider or a parent type"):
            await store.set_state(stranger)  # type: ignore[arg-type]


@run
async def test_the_state_given_to_set_state_stays_its_givers() -> None:
    store, _ = logged(State())
    mine = State(count=1)
    await store.set_state(mine)
    mine.count = 2
    assert await store.get("count") == 1


@run
async def test_clear_goes_back_to_the_defaults() -> None:
    store, log = logged(DictState(a=1, b=2))
    await store.clear()
    assert {(c.op, c.key) for c in log.changes} == {("delete", "a"), ("delete", "b")}
    typed, log = logged(State(count=3, names=["a"]))
    await typed.clear()
    assert await typed.get_state() == State()
    needy = InMemoryStateStore(Needy(must=1))
    with pytest.raises(ValueError, match="must have defaults"):
        await needy.clear()


@run
async def test_a_change_that_is_refused_is_taken_back() -> None:
    """A value that can't be kept must not stay in the live state as if it were."""
    store, log = logged(DictState(a={"b": 1}, docs=[1]))
    before = store.export()
    log.refuse = ValueError("no")
    for write in (
        store.set("a.b", 2),
        store.set("a.c.d", 2),
        store.set("fresh.key", 2),
        store.set("a", 3),
        store.append("docs", 2),
        store.append("a.more", 2),
        store.set("docs.0", 9),
        store.clear(),
        store.set_state(DictState(z=1)),
    ):
        with pytest.raises(ValueError, match="no"):
            await write
        assert store.export() == before == {"a": {"b": 1}, "docs": [1]}
    with pytest.raises(ValueError, match="no"):
        async with store.edit_state() as state:
            state["a"]["b"] = 5
    assert store.export() == before
    log.refuse = None
    with pytest.raises(ValueError, match="Failed to serialize"):
        await store.set("a.x", object())
    assert store.export() == before


@run
async def test_a_typed_change_that_cannot_be_dumped_is_taken_back() -> None:
    store, _ = logged(State())
    with pytest.raises(ValueError, match="serialize"):
        await store.set("seen", {Handle()})
    assert await store.get("seen") == set()


@run
async def test_a_write_is_told_before_anything_else_can_change_it() -> None:
    store, log = logged(DictState(docs=[]))
    documents = await store.get("docs")

    async def step(name: str) -> None:
        for number in range(3):
            documents.append(f"{name}{number}")
            await store.set("docs", documents)

    await asyncio.gather(step("a"), step("b"))
    assert log.values["docs"] == documents
    assert len(documents) == 6


@run
async def test_typed_fields_are_told_as_their_type_dumps_them() -> None:
    store, log = logged(State())
    await store.set("seen", {"x"})
    await store.set("day", date(2026, 1, 2))
    await store.set("anything", [Note(text="n", more=1)])
    await store.append("names", "a")
    await store.set("hidden", Handle())
    assert log.values["seen"] == ["x"]
    assert log.values["day"] == "2026-01-02"
    assert "hidden" not in log.values
    restored = InMemoryStateStore.restore(State, log.values)
    assert await restored.get_state() == State(
        seen={"x"}, day=date(2026, 1, 2), anything=[Note(text="n", more=1)], names=["a"]
    )
    assert restored.export().keys() == {"count", "names", "seen", "day", "anything"}


@run
async def test_a_value_set_against_its_field_is_restored_as_it_was() -> None:
    """Setting doesn't validate, as in the origin; a resume must not fail of it either."""
    store, log = logged(State())
    await store.set("count", "many")
    restored = InMemoryStateStore.restore(State, log.values)
    assert await restored.get("count") == "many"


@run
async def test_a_restored_dict_state_has_all_keys() -> None:
    restored = InMemoryStateStore.restore(DictState, {"a": 1, "_data": 2, "items": [3]})
    assert restored.export() == {"a": 1, "_data": 2, "items": [3]}
    assert restored.state_type is DictState


@run
async def test_the_serialized_form_is_the_origins() -> None:
    serializer = JsonSerializer()
    data = InMemoryStateStore(DictState(x=1, y=Note(text="t"))).to_dict(serializer)
    assert data["store_type"] == "in_memory"
    assert (data["state_type"], data["state_module"]) == ("DictState", "perdure.context.state_store")
    assert data["state_data"]["_data"]["x"] == "1"
    back = InMemoryStateStore.from_dict(data, serializer)
    assert back.export() == {"x": 1, "y": Note(text="t")}
    typed = InMemoryStateStore(State(count=3, seen={"s"})).to_dict(serializer)
    assert isinstance(typed["state_data"], str)
    assert await InMemoryStateStore.from_dict(typed, serializer).get_state() == State(count=3, seen={"s"})
    assert InMemoryStateStore.from_dict({}, serializer).export() == {}


@run
async def test_only_the_key_memory_may_be_left_out() -> None:
    with pytest.warns(UnserializableKeyWarning, match="memory"):
        data = InMemoryStateStore(DictState(memory=object(), x=1)).to_dict(JsonSerializer())
    assert data["state_data"] == {"_data": {"x": "1"}}
    with pytest.raises(ValueError, match="Failed to serialize state value for key other"):
        InMemoryStateStore(DictState(other=object())).to_dict(JsonSerializer())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"store_type": "redis"}, "'redis'"),
        ({"store_type": "in_memory", "state_data": "{}"}, "not a pydantic model"),
        ({"store_type": "in_memory", "state_data": {"_data": {"a": "[1,"}}}, "for key a"),
    ],
)
def test_a_damaged_form_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        InMemoryStateStore.from_dict(data, JsonSerializer())


KEYS = st.sampled_from(["a", "b", "c.d", "c.e.f"])
WRITES = st.lists(
    st.tuples(
        st.sampled_from(["set", "append", "edit", "clear", "set_state", "mutate"]),
        KEYS,
        st.integers() | st.lists(st.integers(), max_size=3),
    ),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(WRITES)
def test_the_changes_told_fold_to_the_live_state(writes: list[tuple[str, str, Any]]) -> None:
    async def drive() -> None:
        store, log = logged(DictState())
        for kind, path, value in writes:
            try:
                if kind == "set":
                    await store.set(path, value)
                elif kind == "append":
                    await store.append(path, value)
                elif kind == "edit":
                    async with store.edit_state() as state:
                        state[path[0]] = value
                elif kind == "clear":
                    await store.clear()
                elif kind == "set_state":
                    await store.set_state(DictState(**{path[0]: value}))
                else:
                    held = await store.get(path, None)
                    if isinstance(held, list):
                        held.append(value)
                        await store.set(path, held)
            except ValueError:
                pass
            assert log.values == store.export()

    asyncio.run(drive())
