"""Repairs events of Anthropic's and Google's own streams, so that their SDKs read the variants that servers send.

Proxies and compatible servers leave out usage and event names, send null for text, add parts and deltas of later
versions, or end a stream as OpenAI does. The SDKs and their adapters fail over each of these, after text was shown.
"""

from collections.abc import Callable
from typing import Any, Final, cast

from pydantic_core import from_json, to_json

Fields = dict[str, Any]
Repair = Callable[[bytes, Fields], tuple[bytes, Fields] | None]
"""Returns the name and the fields of an event as the SDK reads it, None for one to drop."""

END_MARKER: Final = b"[DONE]"
_DELTAS: Final = {
    "text_delta": "text",
    "thinking_delta": "thinking",
    "input_json_delta": "partial_json",
    "signature_delta": "signature",
}
"""Deltas with a text in one field."""
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
    """

    def __init__(self, repair: Repair) -> None:
        self._repair = repair

    def read(self, event: bytes, data: bytes) -> tuple[bytes, bytes] | None:
        """Returns the name and the data of an event, None for one that says nothing."""
        if data == END_MARKER:
            return None
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
            # No JSON, or half of a surrogate pair.
            return event, data
        return name, data if after == before else after


def find_repair(path: str) -> Repair | None:
    """Returns the repair of the protocol that an URL's path belongs to; None for another one."""
    if path.endswith("/v1/messages"):
        return repair_anthropic
    return repair_google if path.endswith(":streamGenerateContent") else None


def repair_anthropic(event: bytes, fields: Fields) -> tuple[bytes, Fields] | None:
    """Repairs an event of Anthropic's protocol."""
    kind = fields.get("type")
    match kind:
        case "message_start":
            message = _as_fields(fields.get("message"))
            if message is not None and _as_fields(message.get("usage")) is None:
                message["usage"] = {"input_tokens": 0, "output_tokens": 0}
        case "message_delta":
            fields["delta"] = _as_fields(fields.get("delta")) or {}
            usage = _as_fields(fields.get("usage")) or {}
            if not isinstance(usage.get("output_tokens"), int):
                fields["usage"] = {**usage, "output_tokens": 0}
        case "content_block_start":
            block = _as_fields(fields.get("content_block"))
            if block is not None and block.get("type") == "text" and not isinstance(block.get("text"), str):
                block["text"] = ""
        case "content_block_delta":
            return _repair_delta(event or b"content_block_delta", fields)
        case _:
            pass
    return event or (kind.encode() if isinstance(kind, str) else b""), fields


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
    """Repairs an event of Google's protocol: parts of kinds that this version does not know are left out."""
    for candidate in _list_fields(fields.get("candidates")):
        content = _as_fields(candidate.get("content"))
        if content is not None and isinstance(content.get("parts"), list):
            content["parts"] = [part for part in _list_fields(content["parts"]) if not _PART_FIELDS.isdisjoint(part)]
    return event, fields


def _as_fields(value: object) -> Fields | None:
    return cast("Fields", value) if isinstance(value, dict) else None


def _list_fields(value: object) -> list[Fields]:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [fields for item in items if (fields := _as_fields(item)) is not None]
