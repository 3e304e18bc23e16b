"""JSON from outside: the bound of nesting, and errors of one kind."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.bounded_json import MAX_DEPTH, parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=40,
)


@given(VALUES)
def test_parse_json_returns_what_was_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


@given(st.binary() | st.text())
def test_parse_json_raises_value_errors_only(text: str | bytes) -> None:
    try:
        parse_json(text)
    except ValueError:
        return


@pytest.mark.parametrize("unit", ["[", '{"a":', '[{"a":'])
@pytest.mark.parametrize("as_bytes", [False, True])
def test_parse_json_refuses_deep_nesting(unit: str, as_bytes: bool) -> None:
    for depth in (MAX_DEPTH + 1, 400, 10_000, 600_000 // len(unit)):
        inside = unit * depth + "1" + "".join({"[": "]", "{": "}"}.get(c, "") for c in reversed(unit)) * depth
        for text in (inside, unit * depth):
            with pytest.raises(ValueError, match=r"."):
                parse_json(text.encode() if as_bytes else text)


def test_parse_json_accepts_the_bound_and_brackets_in_texts() -> None:
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    assert parse_json(json.dumps({"text": "[{" * 10_000, "wide": [[]] * 1000}))["wide"][0] == []


def test_parse_json_converts_integers_as_asked() -> None:
    assert parse_json("[1, 2.5]", parse_int=lambda digits: f"n{digits}") == ["n1", 2.5]
