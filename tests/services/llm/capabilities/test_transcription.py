"""Answers of transcription servers in their forms."""

import json

import pytest

from services.llm.capabilities.transcripts import MAX_TRANSCRIPT, read_transcript
from services.llm.routing.faults.reasons import EmptyAnswer

HELLO = "Hello there."
DELTA = '{"type":"transcript.text.delta","delta":"Hel"}'
DONE = '{"type":"transcript.text.done","text":"Hello there."}'


@pytest.mark.parametrize(
    ("body", "text"),
    [
        # OpenAI and whisper.cpp, which ends with a line.
        ('{"text": "Hello there."}', HELLO),
        ('{"text":" Hello there.\\n"}', HELLO),
        # Its segments are lines; a line without a space is the speaker's.
        ('{"text":" Hello\\n there.\\n"}', HELLO),
        ('{"text":"Hello\\nthere."}', "Hello\nthere."),
        # With segments beside the text (LocalAI), and without it (verbose answers of some servers).
        ('{"segments": [{"id": 0, "text": "Hello"}], "text": "Hello there."}', HELLO),
        ('{"segments": [{"text": " Hello"}, {"text": " there."}]}', HELLO),
        ('[{"text": "Hello"}, {"text": "there."}]', HELLO),
        # Plain text in place of the requested format; one that begins like JSON; with a byte order mark.
        ("Hello there.\n", HELLO),
        ('"Hello there."', HELLO),
        ("[laughs] Hello there.", "[laughs] Hello there."),
        ("\ufeffHello there.", HELLO),
        # Subtitles.
        ("WEBVTT\n\n00:00.000 --> 00:02.000\nHello\n\n00:02.000 --> 00:03.000\nthere.", "Hello\nthere."),
        ("1\n00:00:00,000 --> 00:00:02,000\nHello there.\n", HELLO),
        # Event streams: whole at the end, by deltas, by segments.
        (f"data: {DELTA}\n\ndata: {DONE}\n\ndata: [DONE]\n\n", HELLO),
        ('event: x\ndata: {"delta":"Hello "}\n\ndata: {"delta":"there."}\n\n', HELLO),
        ('data: {"text":"Hello"}\n\ndata: {"text":" there."}\n\n', HELLO),
        # Nothing was heard.
        ('{"text": ""}', ""),
        ("", ""),
        ('{"text": " [BLANK_AUDIO]\\n"}', ""),
        ('{"text": "(silence)"}', ""),
    ],
)
def test_each_form_of_an_answer_is_read(body: str, text: str) -> None:
    assert read_transcript(body.encode(), 7)[0] == text


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": {"message": "no model"}}',
        b'{"id": 1}',
        b'{"text": null}',
        b"[1, 2]",
        b"<!DOCTYPE html><p>Bad gateway",
        b'data: {"error": {"message": "failed"}}\n\n',
        b"\xff\xfe\x00",
    ],
)
def test_an_answer_without_a_text_is_a_failure(body: bytes) -> None:
    with pytest.raises(EmptyAnswer):
        read_transcript(body, 7)


@pytest.mark.parametrize("body", ["[" * 100_000, '{"text": ' + "[" * 900 + "]" * 900 + "}", "data: " + "[" * 100_000])
def test_deep_nesting_is_read_as_text(body: str) -> None:
    assert read_transcript(body.encode(), 7)[0] == body.removeprefix("data: ")[:MAX_TRANSCRIPT]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"type": "tokens", "input_tokens": 40, "output_tokens": 5}, (40, 5)),
        ({"type": "duration", "seconds": 12}, (120, 0)),
        # Without a count, and with one that cannot be.
        (None, (7, 0)),
        ({"seconds": 1e300}, (7, 0)),
        ({"input_tokens": -3}, (7, 0)),
        ({"input_tokens": 40, "output_tokens": 10**30}, (40, 0)),
        ({"input_tokens": 40, "output_tokens": -5}, (40, 0)),
    ],
)
def test_usage_is_what_the_server_counts_or_the_length(usage: object, tokens: tuple[int, int]) -> None:
    _, used = read_transcript(json.dumps({"text": HELLO, "usage": usage}).encode(), 7)
    assert (used.input_tokens, used.output_tokens) == tokens
