"""Repairs unusual chunks of chat completions, and whole answers, so that every SDK reads them.

The SDKs demand different fields: OpenRouter's and Mistral's models reject a chunk without choices, a tool call without
an index or a name, an empty finish reason.
"""

import json
from typing import Any, Final, cast

from pydantic_core import from_json

from services.llm.providers.wire.chat_fields import (
    DONE,
    MAX_DIGITS,
    MOST_OBJECTS,
    Fields,
    SurrogatePairs,
    as_count,
    as_message,
    drop_unreadable,
    dump,
    find_error,
    find_reason,
    repair_content,
    repair_reason,
    repair_reasoning,
    split_objects,
)

_BETWEEN: Final = b"\n\ndata: "
"""The frame between the data of two events."""
_END_WORDS: Final = frozenset({b"DONE", b"END"})
_BEGINNINGS: Final = (b"{", b"[", b"<")
"""First bytes of objects, lists and error pages."""
_COUNTS: Final = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
"""Names of token counts, with their names in OpenAI's newer protocol and in Anthropic's."""
_MOST_CHOICES: Final = 16
"""Choices of a chunk that are read: more than one is asked for nowhere."""
_MOST_CALLS: Final = 256
"""Tool calls of a chunk that are read: twice as many as OpenAI allows tools."""
_DETAILS: Final = ("prompt_tokens_details", "completion_tokens_details")


class ChunkRepair:
    """Repairs the unusual chunks of one stream.

    Args:
        counts: the largest token counts of the stream so far; updated.
    """

    def __init__(self, counts: dict[str, int] | None = None) -> None:
        self._counts = {} if counts is None else counts
        self._indices: dict[str, int] = {}
        """Indices of tool calls that the server sent without one, by their ids."""
        self._last_index = 0
        self.has_begun = False
        """True once a delta brought text or a tool call."""
        self._message: str | None = None
        """The text so far of a stream of messages in place of deltas."""

    def repair(self, data: bytes) -> bytes:
        """Returns the data of an event in a form that every SDK reads; nothing for an event without content."""
        try:
            chunk: object = from_json(data)
        except ValueError:
            if data.strip(b"[] ").upper() in _END_WORDS:
                return DONE
            if objects := split_objects(data):
                return _BETWEEN.join(filter(None, map(self.repair, objects)))
            # Half an object is an error. Bare words, such as `keep-alive`, are none: the finish reason tells the end.
            return data if data.startswith(_BEGINNINGS) else b""
        if isinstance(chunk, list):
            # Google's compatible endpoint wraps its errors; others send all chunks as one list.
            listed = [dump(cast("Fields", each)) for each in cast("list[object]", chunk) if isinstance(each, dict)]
            return _BETWEEN.join(filter(None, map(self.repair, listed[:MOST_OBJECTS])))
        if not isinstance(chunk, dict):
            return b""
        fields = cast("Fields", chunk)
        inner: Any = fields.get("data")
        # Some gateways put a frame around each chunk.
        is_framed = "choices" not in fields and isinstance(inner, dict) and "choices" in inner
        return dump(self._repair_chunk(cast("Fields", inner) if is_framed else fields))

    def repair_whole(self, body: bytes) -> bytes:
        """Returns a whole answer in a form that every SDK reads; a body of another kind as it is."""
        try:
            answer: object = from_json(SurrogatePairs().join(body))
        except ValueError:
            return body
        if not isinstance(answer, dict):
            return body
        fields = cast("Fields", answer)
        listed: object = fields.get("choices")
        choices = cast("list[object]", listed) if isinstance(listed, list) else []
        if fields.get("error") or not any(isinstance(each, dict) for each in choices):
            return body
        fields = self._repair_chunk(fields)
        if fields.get("usage") is None:
            fields.pop("usage", None)
        # OpenRouter's SDK requires both.
        fields |= {"object": "chat.completion", "provider": str(fields.get("provider") or "")}
        for choice in fields["choices"]:
            choice["message"] = as_message(choice.pop("delta"))
            choice["finish_reason"] = choice["finish_reason"] or "stop"
            choice.setdefault("native_finish_reason", choice["finish_reason"])
        return dump(fields)

    def _repair_chunk(self, chunk: Fields) -> Fields:
        if error := find_error(chunk):
            return {**chunk, "error": error}
        listed: Any = chunk.get("choices")
        choices = cast("list[object]", listed if isinstance(listed, list) else [listed])
        chunk["choices"] = [
            self._repair_choice(cast("Fields", each)) for each in choices[:_MOST_CHOICES] if isinstance(each, dict)
        ]
        for name in ("id", "model"):
            chunk[name] = str(chunk.get(name) or "")
        drop_unreadable(chunk)
        chunk["created"] = as_count(chunk.get("created"))
        chunk["object"] = "chat.completion.chunk"
        for choice in chunk["choices"]:
            # Moonshot's place for it.
            if usage := choice.pop("usage", None):
                chunk.setdefault("usage", usage)
        if "usage" in chunk:
            chunk["usage"] = self._repair_usage(chunk["usage"])
        return chunk

    def _repair_usage(self, usage: object) -> Fields | None:
        """Returns usage with whole counts, none of them below what was reported before: each is the sum so far."""
        if not isinstance(usage, dict):
            return None
        fields = {name: value for name, value in cast("Fields", usage).items() if value is not None}
        for name, other in _COUNTS.items():
            count = as_count(fields.get(name, fields.get(other)))
            fields[name] = self._counts[name] = max(count, self._counts.get(name, 0))
        if not any(self._counts.values()):
            return None
        fields["total_tokens"] = as_count(fields.get("total_tokens")) or sum(self._counts.values())
        for name in _DETAILS:
            details = fields.pop(name, None)
            if isinstance(details, dict):
                fields[name] = {key: as_count(value) for key, value in cast("Fields", details).items()}
        return fields

    def _repair_choice(self, choice: Fields) -> Fields:
        delta = self._find_delta(choice)
        if delta.get("role") not in (None, "assistant"):
            del delta["role"]
        if "content" in delta:
            delta["content"] = repair_content(delta["content"])
        repair_reasoning(delta)
        drop_unreadable(delta)
        call: Any = delta.pop("function_call", None)
        if call and not delta.get("tool_calls"):
            delta["tool_calls"] = [{"function": call}]
        if delta.get("tool_calls"):
            delta["tool_calls"] = self._repair_tool_calls(delta["tool_calls"])
        else:
            delta.pop("tool_calls", None)
        self.has_begun = self.has_begun or bool(delta.get("content") or delta.get("tool_calls"))
        # In several forms, none of which is read.
        choice.pop("logprobs", None)
        index = choice.get("index")
        return {
            **choice,
            "index": index if isinstance(index, int) else 0,
            "delta": delta,
            "finish_reason": repair_reason(find_reason(choice)),
        }

    def _find_delta(self, choice: Fields) -> Fields:
        """Returns the delta of a choice; servers also send text outside a delta, or the whole message at once."""
        message, text = choice.pop("message", None), choice.pop("text", None)
        delta = choice.get("delta")
        if isinstance(delta, dict) and delta:
            return cast("Fields", delta)
        if isinstance(text, str):
            return {"content": text}
        return self._find_message(cast("Fields", message)) if isinstance(message, dict) else {}

    def _find_message(self, message: Fields) -> Fields:
        """Returns the delta of a message: some servers send one in each chunk, of a piece or of the text so far."""
        if self.has_begun and self._message is None:
            # A whole message after deltas repeats their text.
            return {}
        before, content = self._message or "", message.get("content")
        if not isinstance(content, str):
            return message
        added = content.removeprefix(before)
        self._message = before + added
        return {**message, "content": added}

    def _repair_tool_calls(self, calls: object) -> list[Fields]:
        listed = cast("list[object]", calls if isinstance(calls, list) else [calls])
        found = [cast("Fields", call) for call in listed[:_MOST_CALLS] if isinstance(call, dict)]
        return [self._repair_tool_call(call, position, len(found)) for position, call in enumerate(found)]

    def _repair_tool_call(self, call: Fields, position: int, count: int) -> Fields:
        # Some servers leave out the frame around the name and the arguments.
        function: Fields = call["function"] if isinstance(call.get("function"), dict) else {**call}
        arguments = function.get("arguments")
        if not isinstance(arguments, str):
            arguments = "" if arguments is None else json.dumps(arguments)
        call_id = call.get("id")
        repaired = {
            **call,
            "index": self._index(call.get("index"), str(call_id or ""), position, count),
            "type": "function",
            "function": {"name": str(function.get("name") or ""), "arguments": arguments},
        }
        if call_id is not None:
            repaired["id"] = str(call_id)
        else:
            # Mistral's SDK rejects null.
            repaired.pop("id", None)
        return repaired

    def _index(self, named: object, call_id: str, position: int, count: int) -> int:
        """Returns the server's index, else that of the call's id, else the position in a list, else the last one."""
        if isinstance(named, str) and named.isdecimal() and len(named) <= MAX_DIGITS:
            named = int(named)
        if isinstance(named, int) and not isinstance(named, bool):
            index = named
        elif call_id:
            index = self._indices.setdefault(call_id, len(self._indices))
        else:
            index = position if count > 1 else self._last_index
        self._last_index = index
        return index
