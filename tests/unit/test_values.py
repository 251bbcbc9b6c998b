"""What changed of a key of the state since it was last written."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from perdure.engine.model import Value
from perdure.engine.values import Encoder, difference


class Counting:
    def __init__(self) -> None:
        self.encoded: list[Any] = []

    def __call__(self, value: Any) -> bytes:
        self.encoded.append(value)
        return json.dumps(value).encode()


def test_names_that_are_set_again_with_one_more_are_not_encoded_again() -> None:
    encode = Counting()
    encoder, names = Encoder(encode), [f"document {n}" for n in range(100)]
    stored = Value(items=encoder.items("names", names), is_list=True)
    encode.encoded.clear()
    names.append("one more")
    tick = difference(stored, "set", "names", names, encoder, 1)
    assert tick is not None
    assert (tick.op, tick.items) == ("append", [b'"one more"'])
    assert encode.encoded == ["one more"]


def test_what_can_change_in_place_is_encoded_each_time() -> None:
    encoder, value = Encoder(Counting()), [{"a": 1}, [2], "text"]
    first = encoder.items("key", value)
    value[0]["a"] = 5  # type: ignore[index]
    assert encoder.items("key", value) == [b'{"a": 5}', *first[1:]]


scalars = st.one_of(st.integers(0, 2), st.floats(), st.booleans(), st.none(), st.sampled_from(["", "a"]))
items = st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(st.just("k"), scalars))
edits = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.just(0), items),
        st.tuples(st.just("put"), st.integers(0, 5), items),
        st.tuples(st.just("cut"), st.integers(0, 5), st.none()),
        st.tuples(st.just("into"), st.integers(0, 5), scalars),
    ),
    max_size=12,
)


@given(edits)
def test_a_list_is_encoded_as_it_would_be_anew_whatever_was_done_to_it(
    edits: list[tuple[str, int, Any]],
) -> None:
    encoder, plain, value = Encoder(Counting()), Counting(), []  # type: ignore[var-annotated]
    for what, place, item in edits:
        at = place % len(value) if value else 0
        if what == "append" or not value:
            value.append(item)
        elif what == "put":
            value[at] = item
        elif what == "cut":
            del value[at]
        elif isinstance(value[at], list):
            value[at].append(item)
        elif isinstance(value[at], dict):
            value[at]["k"] = item
        assert encoder.items("key", value) == [plain(each) for each in value]
