"""Parses the answers of transcription servers: JSON, event streams, subtitles and plain text."""

import re
from typing import cast

from pydantic_ai.usage import RequestUsage

from core.bounded_json import parse_json
from services.llm.routing.faults.reasons import EmptyAnswer

TOKENS_A_SECOND = 10
"""Tokens charged per second of audio if the server reports none, as OpenAI's models count them. A price per million
tokens in `<ID>_PRICES` is then the price of 27.8 hours."""
MAX_COUNTED = 10_000_000
"""Largest plausible usage of a recording in tokens or seconds; larger reports are ignored."""
MAX_TRANSCRIPT = 100_000
"""Maximum characters of a transcript; an hour of fast speech has 60,000."""
_TIMESTAMP = re.compile(r"^(\d+|(\d+:)?\d+:\d+[.,]\d+ --> .*|WEBVTT.*|NOTE\b.*)$")
_SILENCE = re.compile(r"^[\[(*]+\s*(blank[_ ]audio|silence|no speech|inaudible)\s*[\])*]+$", re.IGNORECASE)
"""Placeholders that Whisper servers return for silence."""


def read_transcript(body: bytes, tokens: int) -> tuple[str, RequestUsage]:
    """Parses an answer: JSON with a text or segments, an event stream, subtitles, or plain text.

    Args:
        body: body of a successful response.
        tokens: estimated usage, returned if the answer reports none.

    Raises:
        EmptyAnswer: it is an error, a page, or no text.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EmptyAnswer("unreadable answer") from error
    usage = RequestUsage(input_tokens=tokens)
    stripped = text.lstrip()
    if stripped[:1] in {"{", "[", '"'}:
        try:
            parsed: object = parse_json(text)
        except ValueError:
            # A transcript may begin with a bracket.
            parsed = text
        found = _read_text(parsed)
        if found is None:
            raise EmptyAnswer("an answer without a text")
        text, usage = found, _read_usage(parsed) or usage
    elif stripped[:6].startswith(("data:", "event:")):
        text = _read_events(text)
    elif stripped[:15].lower().startswith(("<!doctype", "<html")):
        raise EmptyAnswer("a page in place of a transcript")
    elif stripped.startswith("WEBVTT") or " --> " in stripped[:80]:
        text = "\n".join(line for line in text.splitlines() if line.strip() and not _TIMESTAMP.match(line.strip()))
    text = _join_segments(text[:MAX_TRANSCRIPT]).strip()
    return "" if _SILENCE.match(text) else text, usage


def _join_segments(text: str) -> str:
    """Returns a text whose lines are segments, each with the space before its first word, as one line (whisper.cpp)."""
    return "".join(line if line.startswith(" ") else f"\n{line}" for line in text.split("\n"))


def _read_text(parsed: object) -> str | None:
    """Returns the text in a JSON value, in the shapes that servers have; None where there is none."""
    if isinstance(parsed, str):
        return parsed
    if isinstance(parsed, list):
        texts = [_read_text(each) for each in cast("list[object]", parsed)]
        return None if None in texts else " ".join(text.strip() for text in texts if text)
    if not isinstance(parsed, dict):
        return None
    fields = cast("dict[str, object]", parsed)
    for name in ("text", "segments", "transcription"):
        if isinstance(fields.get(name), str | list):
            return _read_text(fields[name])
    return None


def _read_events(stream: str) -> str:
    """Returns the text of server-sent events: the whole one at their end, else the pieces together."""
    pieces: list[str] = []
    for line in stream.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            event: object = parse_json(data)
        except ValueError:
            pieces.append(data)
            continue
        fields = cast("dict[str, object]", event) if isinstance(event, dict) else {}
        if "error" in fields:
            raise EmptyAnswer("an error in the stream")
        if fields.get("type") == "transcript.text.done":
            return str(fields.get("text") or "")
        piece = event if isinstance(event, str) else fields.get("delta")
        pieces.append(piece if isinstance(piece, str) else _read_text(fields) or "")
    return "".join(pieces)


def _read_usage(parsed: object) -> RequestUsage | None:
    """Returns the tokens that an answer counts, or those of its seconds."""
    found = cast("dict[str, object]", parsed).get("usage") if isinstance(parsed, dict) else None
    if not isinstance(found, dict):
        return None
    usage = cast("dict[str, object]", found)
    tokens, written, seconds = (usage.get(name) for name in ("input_tokens", "output_tokens", "seconds"))
    if isinstance(tokens, int) and 0 < tokens < MAX_COUNTED:
        is_believed = isinstance(written, int) and 0 < written < MAX_COUNTED
        return RequestUsage(input_tokens=tokens, output_tokens=written if is_believed else 0)
    if isinstance(seconds, int | float) and 0 < seconds < MAX_COUNTED:
        return RequestUsage(input_tokens=round(seconds * TOKENS_A_SECOND))
    return None
