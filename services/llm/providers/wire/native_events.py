"""Repairs events of Anthropic's and Google's own streams, so that their SDKs read the variants that servers send.

Proxies and compatible servers leave out usage and event names, send null for text, add parts and deltas of later
versions, or end a stream as OpenAI does. The SDKs and their adapters fail over each of these, after text was shown.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

from pydantic_core import from_json, to_json

from core.bounded_json import parse_json
from services.llm.providers.wire.chat_fields import DONE, Fields, SurrogatePairs, as_count
from services.llm.server_words import find_message

Repair = Callable[[bytes, Fields], tuple[bytes, Fields] | None]
"""Returns the name and the fields of an event as the SDK reads it, None for one to drop."""
Split = Callable[[Fields], Iterator[Fields]]
"""Returns the events of a stream that says the same as a whole answer."""

STREAMING_PATH: Final = ":streamGenerateContent"
"""The end of the path of Google's streams, which no field of the request tells."""
_DELTAS: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
    "signature_delta": "signature",
}
"""Deltas with a text in one field."""
_STOP_REASONS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""Finish reasons of OpenAI's protocol that gateways pass on."""
_PART_FIELDS: Final = frozenset(
    {
        "text", "thought", "thoughtSignature", "functionCall", "functionResponse", "inlineData", "fileData",
        "executableCode", "codeExecutionResult", "toolCall", "toolResponse",
    }
)  # fmt: skip


class NativeEvents:
    """The events of one stream.

    Args:
        repair: that of the stream's protocol.
        split: function for an answer that arrives at once.
    """

    def __init__(self, repair: Repair, split: Split | None = None) -> None:
        self._repair = repair
        self._split = split or _as_it_is
        self._pairs = SurrogatePairs()

    def read_whole(self, body: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yields names and data of events for a body that is no stream: an answer, an error, or a list of chunks."""
        try:
            value = parse_json(body)
        except ValueError:
            return
        chunks = cast("list[object]", value) if isinstance(value, list) else [value]
        for fields in _list_fields(chunks):
            for event in self._split(fields):
                read = self.read(b"", json.dumps(event).encode())
                if read is not None:
                    yield read

    def read(self, event: bytes, data: bytes) -> tuple[bytes, bytes] | None:
        """Returns the name and the data of an event, None for one that says nothing."""
        if data == DONE:
            return None
        if b"\\ud" in data or b"\\uD" in data:
            data = self._pairs.join(data)
        try:
            fields = _as_fields(from_json(data))
            if fields is None:
                return event, data
            before = to_json(fields)
            repaired = self._repair(event, fields)
            if repaired is None:
                return None
            name, changed = repaired
            after = to_json(changed)
        except ValueError:
            # No JSON.
            return event, data
        return name, data if after == before else after


def find_protocol(path: str) -> tuple[Repair, Split] | None:
    """Returns the repairs of the protocol that an URL's path belongs to; None for another one."""
    if path.endswith("/v1/messages"):
        return AnthropicRepair(), split_anthropic
    return (repair_google, _as_it_is) if path.endswith(STREAMING_PATH) else None


def _as_it_is(fields: Fields) -> Iterator[Fields]:
    yield fields


def split_anthropic(message: Fields) -> Iterator[Fields]:
    """Yields the events of an answer in Anthropic's protocol that came at once."""
    if "content" not in message:
        error = _as_fields(message.get("error")) or {"message": find_message(message)}
        yield {"type": "error", "error": {"type": "api_error", **error}}
        return
    usage = _as_fields(message.get("usage")) or {}
    yield {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else _list_fields(content)
    # One of no type says nothing.
    blocks = [block for block in blocks if block.get("type")]
    for index, block in enumerate(blocks):
        kind = f"{block.get('type')}_delta"
        name = _DELTAS.get(kind)
        started, delta = block, None
        if block.get("type") == "tool_use":
            arguments: object = block.get("input")
            started = {**block, "input": cast("Fields", {})}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments or {})}
        elif name is not None:
            started, delta = {**block, name: ""}, {"type": kind, name: block.get(name)}
        yield {"type": "content_block_start", "index": index, "content_block": started}
        if delta is not None:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": usage}
    yield {"type": "message_stop"}


class AnthropicRepair:
    """Repairs the events of one stream of Anthropic's protocol."""

    def __init__(self) -> None:
        self._blocks = 0
        self._places: dict[object, int] = {}
        """Our index of the latest block under each index of the server's: some number every block alike."""

    def __call__(self, event: bytes, fields: Fields) -> tuple[bytes, Fields] | None:
        """Repairs an event."""
        kind = fields.get("type")
        match kind:
            case "message_start":
                message = _as_fields(fields.get("message"))
                if message is not None:
                    message["usage"] = _whole_counts(message.get("usage"), ("input_tokens", "output_tokens"))
            case "message_delta":
                delta = fields["delta"] = _as_fields(fields.get("delta")) or {}
                if (reason := str(delta.get("stop_reason"))) in _STOP_REASONS:
                    delta["stop_reason"] = _STOP_REASONS[reason]
                fields["usage"] = _whole_counts(fields.get("usage"), ("output_tokens",))
            case "content_block_start":
                self._places[str(fields.get("index"))] = self._blocks
                fields["index"] = self._blocks
                self._blocks += 1
                _repair_block(_as_fields(fields.get("content_block")) or {})
            case "content_block_delta" | "content_block_stop":
                fields["index"] = self._places.get(str(fields.get("index")), max(self._blocks - 1, 0))
                return (
                    _repair_delta(event or str(kind).encode(), fields)
                    if kind == "content_block_delta"
                    else (event or b"content_block_stop", fields)
                )
            case _:
                pass
        return event or (kind.encode() if isinstance(kind, str) else b""), fields


def _repair_block(block: Fields) -> None:
    """Adds the text that the beginning of a block lacks."""
    kind = block.get("type")
    names = {"text": ("text",), "thinking": ("thinking", "signature")}.get(str(kind), ())
    for name in names:
        if not isinstance(block.get(name), str):
            block[name] = ""


def _whole_counts(usage: object, required: Sequence[str]) -> Fields:
    """Returns usage with whole counts; fields that are no numbers are left out."""
    fields = _as_fields(usage) or {}
    counts = {name: as_count(value) for name, value in fields.items() if name.endswith("_tokens") and value is not None}
    others = {name: details for name, value in fields.items() if (details := _as_fields(value)) is not None}
    return {**dict.fromkeys(required, 0), **others, **counts}


def _repair_delta(event: bytes, fields: Fields) -> tuple[bytes, Fields] | None:
    delta = _as_fields(fields.get("delta"))
    if delta is None:
        return None
    name = _DELTAS.get(str(delta.get("type")))
    if name is None:
        return (event, fields) if delta.get("type") == "citations_delta" else None
    if not isinstance(delta.get(name), str):
        delta[name] = ""
    return event, fields


def repair_google(event: bytes, fields: Fields) -> tuple[bytes, Fields] | None:
    """Repairs an event of Google's protocol: parts that this version does not know or cannot read are left out."""
    for candidate in _list_fields(fields.get("candidates")):
        candidate.pop("avgLogprobs", None)
        content = _as_fields(candidate.get("content"))
        if content is not None and isinstance(content.get("parts"), list):
            content["parts"] = [part for part in _list_fields(content["parts"]) if _is_readable(part)]
    if "usageMetadata" in fields:
        usage = _as_fields(fields["usageMetadata"]) or {}
        fields["usageMetadata"] = {
            name: as_count(value) if name.endswith("Count") else value for name, value in usage.items()
        }
    if "modelVersion" in fields:
        fields["modelVersion"] = str(fields["modelVersion"])
    return event, fields


def _is_readable(part: Fields) -> bool:
    """Returns whether a part is of a known kind and says something; arguments that came as text are decoded."""
    if _PART_FIELDS.isdisjoint(part) or ("text" in part and not isinstance(part["text"], str)):
        return False
    if "functionCall" not in part:
        return True
    call = _as_fields(part["functionCall"])
    if call is None or not isinstance(call.get("name"), str):
        return False
    if isinstance(call.get("args"), str):
        try:
            call["args"] = _as_fields(from_json(call["args"])) or {}
        except ValueError:
            return False
    return True


def _as_fields(value: object) -> Fields | None:
    return cast("Fields", value) if isinstance(value, dict) else None


def _list_fields(value: object) -> list[Fields]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [fields for item in items if (fields := _as_fields(item)) is not None]
