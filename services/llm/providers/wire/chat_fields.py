"""Repairs single fields of chat completions: errors, contents, thinking, finish reasons, counts."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final, cast

from pydantic_ai.profiles import DEFAULT_THINKING_TAGS
from pydantic_core import to_json

from services.llm.providers.wire.thinking_tags import ThinkingTags, find_thinking_end
from services.llm.server_words import find_message

Fields = dict[str, Any]

DONE: Final = b"[DONE]"
"""Data of the event that ends a stream."""
MAX_DIGITS: Final = 12
"""Digits of the longest number that is read as a count, an instant or an index."""
MOST: Final = 10**MAX_DIGITS
"""Exclusive limit of such a number."""
MOST_OBJECTS: Final = 64
"""Objects of one event that are read."""
_ERROR_FIELDS: Final = frozenset({"code", "detail", "errors", "error_code", "error_msg", "errcode", "errmsg"})
"""Fields of a chunk without choices that make it an error."""
_KNOWN_REASONS: Final = frozenset({"stop", "length", "tool_calls", "content_filter", "error"})
_GIVEN_UP: Final = frozenset({"abort", "insufficient_system_resource"})
"""Finish reasons of vLLM and DeepSeek for an aborted answer; the reader of the stream handles them."""
_THINKING: Final = ("reasoning", "thinking", "thought")
"""Beginnings of the types of parts that hold thinking. Mistral's SDK reads those of the type `thinking`."""
_THOUGHTS: Final = ("thinking", "thought", "reasoning_text")
"""Further names of thinking in a delta."""
_REASONING_DETAILS: Final = frozenset({"reasoning.text", "reasoning.summary", "reasoning.encrypted"})
_REASONS: Final[Mapping[str, str | None]] = {
    "": None,
    "null": None,
    "none": None,
    "max_tokens": "length",
    "max_output_tokens": "length",
    "max_completion_tokens": "length",
    "max_new_tokens": "length",
    "max_length": "length",
    "model_length": "length",
    "token_limit": "length",
    "tool_use": "tool_calls",
    "tool_call": "tool_calls",
    "function_call": "tool_calls",
    "safety": "content_filter",
    "sensitive": "content_filter",
    "recitation": "content_filter",
    "refusal": "content_filter",
    "network_error": "error",
    "internal_error": "error",
    "server_error": "error",
    "failed": "error",
    "timeout": "error",
    "cancelled": "error",
    "canceled": "error",
    "aborted": "error",
    "unload": "error",
    "eos": "stop",
    "eos_token": "stop",
    "end_turn": "stop",
    "end": "stop",
    "complete": "stop",
    "stop_sequence": "stop",
}
"""Finish reasons of other protocols that servers pass on, in lower case. Any other word counts as `stop`."""


_SURROGATES: Final = re.compile(
    rb"(?<!\\)((?:\\\\)*)"
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\u[dD][c-fC-F][0-9a-fA-F]{2})?|\\u[dD][c-fC-F][0-9a-fA-F]{2})"
)
_PAIR_LENGTH: Final = len(rb"\ud83d\ude00")


class SurrogatePairs:
    """Joins the escaped halves of characters that a server parted between two events; a lone half is no text.

    Parsers refuse a half, and no database or chat takes one.
    """

    def __init__(self) -> None:
        self._first = b""

    def join(self, data: bytes) -> bytes:
        """Returns the data of an event; a first half at its end comes with the second one."""
        return _SURROGATES.sub(self._join_half, data)

    def _join_half(self, found: re.Match[bytes]) -> bytes:
        backslashes, half = found.groups()
        if len(half) == _PAIR_LENGTH:
            return found[0]
        if half[3:4] in b"89abAB":
            self._first = half
            return backslashes
        first, self._first = self._first, b""
        return backslashes + (first + half if first else rb"\ufffd")


def find_reason(choice: Fields) -> object:
    """Returns the finish reason of a choice, in whichever field it is."""
    if "finish_reason" in choice:
        return choice["finish_reason"]
    details: object = choice.get("finish_details")
    return cast("Fields", details).get("type") if isinstance(details, dict) else choice.get("stop_reason")


def split_objects(data: bytes) -> list[bytes]:
    """Returns the JSON objects that stand one after the other in data; none where it holds anything else."""
    text, decoder = data.decode(errors="replace"), json.JSONDecoder()
    objects: list[bytes] = []
    at = 0
    while at < len(text) and len(objects) < MOST_OBJECTS:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return []
        if not isinstance(value, dict):
            return []
        objects.append(text[at:end].encode())
        # A comma is left of a list that came in pieces.
        at = len(text) - len(text[end:].lstrip(" \t\r\n,"))
    return objects


def repair_reason(reason: object) -> str | None:
    """Returns a finish reason in the words of the protocol; None where there is none."""
    if not isinstance(reason, str):
        # A number or true.
        return "stop" if reason else None
    if reason in _KNOWN_REASONS | _GIVEN_UP:
        return reason
    word = reason.lower()
    return _REASONS.get(word, word if word in _KNOWN_REASONS else "stop")


def find_error(chunk: Fields) -> object:
    """Returns the error of a chunk, in the form of an object; servers also send it as text, or without its frame."""
    error: object = chunk.get("error")
    if error:
        return {"message": error} if isinstance(error, str) else error
    if chunk.get("choices"):
        return None
    base: Any = chunk.get("base_resp")
    if isinstance(base, dict) and cast("Fields", base).get("status_code"):
        # MiniMax's form of an error.
        return {"message": str(cast("Fields", base).get("status_msg")), "code": cast("Fields", base)["status_code"]}
    is_error = "error" in (chunk.get("object"), chunk.get("type")) or chunk.get("success") is False
    message = find_message(chunk) if is_error or not _ERROR_FIELDS.isdisjoint(chunk) else ""
    if not message:
        return None
    return {"message": message, "code": chunk.get("code", chunk.get("error_code")), "type": chunk.get("type")}


def as_message(delta: Fields) -> Fields:
    """Returns a whole message from the delta of a stream."""
    content: object = delta.get("content")
    if isinstance(content, str):
        tags = ThinkingTags(*DEFAULT_THINKING_TAGS)
        if find_thinking_end(content) is not None:
            content = f"{DEFAULT_THINKING_TAGS[0]}{content}"
        content = "".join([*tags.split(content), *tags.flush(is_end=True)])
    message: Fields = {**delta, "role": "assistant", "content": content}
    if calls := delta.get("tool_calls"):
        message["tool_calls"] = [{"id": "", **{name: call[name] for name in call if name != "index"}} for call in calls]
    return message


def drop_unreadable(fields: Fields) -> None:
    """Leaves out fields of a chunk or a delta that say nothing to anyone here, in forms that an SDK refuses."""
    for name in ("system_fingerprint", "service_tier", "refusal"):
        if not isinstance(fields.get(name), str | None):
            del fields[name]
    fields.pop("audio", None)
    annotations: object = fields.get("annotations")
    listed = cast("list[object]", annotations) if isinstance(annotations, list) else []
    if "annotations" in fields and not (listed and all(map(_is_citation, listed))):
        del fields["annotations"]


def _is_citation(annotation: object) -> bool:
    match annotation:
        case {
            "type": "url_citation",
            "url_citation": {"url": str(), "title": str(), "start_index": int(), "end_index": int()},
        }:
            return True
        case _:
            return False


def repair_content(content: object) -> object:
    """Returns a content as text; servers also send parts, one part, or a number."""
    match content:
        case None | str():
            return content
        case list():
            return _join_texts(cast("list[object]", content))
        case dict():
            return _join_texts([cast("object", content)])
        case _:
            return str(content)


def repair_reasoning(delta: Fields) -> None:
    """Leaves out thinking that is no text, and its details of kinds that are unknown."""
    for name in ("reasoning", "reasoning_content"):
        if not isinstance(delta.get(name), str | None):
            del delta[name]
    if not (delta.get("reasoning") or delta.get("reasoning_content")):
        thoughts = [text for name in _THOUGHTS if isinstance(text := delta.get(name), str)]
        if thoughts:
            delta["reasoning"] = "".join(thoughts)
    details = delta.pop("reasoning_details", None)
    if isinstance(details, list):
        found = [cast("Fields", each) for each in cast("list[object]", details) if isinstance(each, dict)]
        delta["reasoning_details"] = [each for each in found if str(each.get("type")) in _REASONING_DETAILS]


def _join_texts(parts: list[object]) -> object:
    """Returns a content of text parts as one text; Mistral's other parts, such as thinking, stay as they are."""
    parts = [part for part in parts if isinstance(part, str | dict)]
    texts: list[str] = []
    for part in parts:
        match part:
            case {"type": str(kind)} if kind.startswith(_THINKING) and kind != "thinking":
                pass
            case str(text) | {"type": "text" | "output_text", "text": str(text)}:
                texts.append(text)
            case _:
                return parts
    return "".join(texts)


def as_count(value: object) -> int:
    """Returns a number of tokens, or an instant, from any JSON value; 0 for one that is none."""
    if isinstance(value, str) and value.isdecimal() and len(value) <= MAX_DIGITS:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < MOST:
        return 0
    return int(value)


def dump(chunk: Fields) -> bytes:
    """Returns a chunk as JSON."""
    try:
        return to_json(chunk)
    except ValueError:
        # Half of a surrogate pair.
        return json.dumps(chunk).encode()
