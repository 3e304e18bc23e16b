"""ApiCall: text of a body that no provider can be sent."""

from typing import Any, cast

import pytest

from bot.web.api.errors import ApiError
from bot.web.api.gateway import ApiCall


@pytest.mark.parametrize(
    "raw",
    [
        rb'{"a": "\ud800"}',
        b'{"a": "\xed\xa0\x80"}',
        r'{"a": "\ud800"}'.encode("utf-16"),
        r'{"a": "\ud800"}'.encode("utf-16-le"),
        '{"a": "\ud800"}'.encode("utf-16", "surrogatepass"),
    ],
)
def test_body_with_half_a_surrogate_pair_is_refused_in_every_encoding(raw: bytes) -> None:
    call = ApiCall(cast("Any", None), "1", "application/json", raw)  # Any: the token is not read
    with pytest.raises(ApiError, match="not JSON"):
        _ = call.body


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_body_with_whole_pairs_is_accepted(encoding: str) -> None:
    raw = '{"a": "Привет 😀"}'.encode(encoding)
    assert ApiCall(cast("Any", None), "1", "application/json", raw).body == {"a": "Привет 😀"}
