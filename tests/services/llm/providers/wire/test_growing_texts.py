"""Streams whose deltas hold the whole text so far."""

import pytest

from services.llm.providers.wire.growing_texts import GrowingText

# deltas of one stream, and what each adds; the last is what the end adds
STREAMS = [
    (["The", " audience", " hears"], ["The", " audience", " hears", ""]),
    (["T", "Th", "The", "The end"], ["T", None, "he", " end", ""]),
    (["\n", "The", "The end", "The end."], ["\n", "The", None, " end.", ""]),
    (["The", "The end", "The end.", "The end."], ["The", None, " end.", "", ""]),
    (["The", "The end", "The end.", "The"], ["The", None, " end.", "", ""]),
    (["The audience", "The audience hears"], ["The audience", None, " hears"]),
    (["ha", "haha"], ["ha", None, "haha"]),
    (["ha", "haha", "!"], ["ha", None, "haha!", ""]),
    (["ha", "ha", "ha"], ["ha", "ha", "ha", ""]),
    (["1", "10", "0"], ["1", None, "100", ""]),
]


@pytest.mark.parametrize(("deltas", "added"), STREAMS)
def test_growing_text_is_read_once_and_pieces_are_all_read(deltas: list[str], added: list[str | None]) -> None:
    growing = GrowingText()
    found = [delta if growing.is_over else growing.take(delta) for delta in deltas]
    assert [*found, growing.release()] == added
