"""Streams whose deltas hold the whole text so far."""

import pytest
from pydantic_core import from_json, to_json

from services.llm.providers.wire.chat_chunks import ChatChunks
from services.llm.providers.wire.event_stream import EventStream
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
    (["1", "10", "100", " tons"], ["1", None, None, "10100 tons", ""]),
    (["=", "===", "=======", "=\n"], ["=", None, None, "===========\n", ""]),
    (["==========", "==========="], ["==========", None, "==========="]),
    (["h", "haha", "haha!", "haha! Yes"], ["h", None, "aha!", " Yes", ""]),
    (["Good ", "Good day \ufffd", "Good day \ufffd\ufffd", "Good day \u00e9"], ["Good ", None, "day ", "\u00e9", ""]),
]


@pytest.mark.parametrize(("deltas", "added"), STREAMS)
def test_growing_text_is_read_once_and_pieces_are_all_read(deltas: list[str], added: list[str | None]) -> None:
    growing = GrowingText()
    found = [delta if growing.is_over else growing.take(delta) for delta in deltas]
    assert [*found, growing.release()] == added


@pytest.mark.parametrize("joins", [False, True])
@pytest.mark.parametrize(("deltas", "added"), STREAMS)
def test_usual_chunks_are_read_as_their_texts_are(deltas: list[str], added: list[str | None], *, joins: bool) -> None:
    """The first chunk is compared by its bytes."""
    frame = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    choices = [{"index": 0, "delta": {"content": delta}, "finish_reason": None} for delta in deltas]
    chunks = ChatChunks()
    read = [*chunks.merge([to_json(frame | {"choices": [choice]}) for choice in choices], joins=joins), chunks.flush()]
    assert "".join(from_json(chunk)["choices"][0]["delta"]["content"] for chunk in read if chunk) == "".join(
        text or "" for text in added
    )


@pytest.mark.parametrize("end", ["finish", "stop"])
def test_end_that_repeats_the_beginning_is_read(end: str) -> None:
    """The end of a stream may add a piece that begins like the text so far."""
    stream = EventStream(ChatChunks())
    texts = ["One by one, ", "One by one, One by one"]
    events = b"".join(b"data: %b\n\n" % to_json({"choices": [{"delta": {"content": text}}]}) for text in texts)
    if end == "stop":
        events += b"data: %b\n\n" % to_json({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    read = stream.feed(events) + stream.finish(is_delimited=True)
    found = [from_json(event)["choices"][0]["delta"].get("content", "") for event in read.split(b"data: ")[1:]]
    assert "".join(found) == texts[-1]
