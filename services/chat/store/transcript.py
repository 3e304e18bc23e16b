"""Messages with files or tool calls, as they are stored and read: files stand beside the JSON, calls have results.

A user's file becomes the text "[image]" with its digest in the metadata, which is not sent to a model: a file that is
not restored reads as that text. Files produced by a model or a tool are kept only as that text.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    BinaryContent,
    FilePart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextContent,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from sqlalchemy import Connection, select, tuple_

from core.db.tables import AttachmentRow

_DIGEST = "attachment"


@dataclass(frozen=True, slots=True)
class Transcript:
    """Messages ready to be stored.

    Args:
        json: the messages, with "[image]" in place of each file.
        tokens: their estimated tokens, without files.
        file_count: the user's files in them.
        attachments: these files by digest.
    """

    json: str
    tokens: int
    file_count: int = 0
    attachments: Mapping[str, BinaryContent] = field(default_factory=dict[str, BinaryContent])


def detach_files(messages: Sequence[ModelMessage]) -> tuple[list[ModelMessage], Mapping[str, BinaryContent]]:
    """Returns the messages with "[image]" in place of each file, and the user's files by digest."""
    attachments: dict[str, BinaryContent] = {}
    return [_detach(message, attachments) for message in messages], attachments


def has_files(messages: Sequence[ModelMessage]) -> bool:
    """Returns whether the messages contain a user's file."""
    return any(isinstance(item, BinaryContent) for message in messages for item in _items(message))


def digests(messages: Sequence[ModelMessage]) -> list[str]:
    """Returns the digests of the user's files, in order."""
    return [digest for message in messages for item in _items(message) if (digest := find_digest(item)) is not None]


def restore(
    messages: Sequence[ModelMessage], attachments: Mapping[str, BinaryContent], limit: int
) -> list[ModelMessage]:
    """Replaces the placeholders of the user's last `limit` files by the given bytes."""
    skipped = max(0, len(digests(messages)) - limit)
    restored: list[ModelMessage] = []
    for message in messages:
        parts = list(message.parts)
        for index, part in enumerate(parts):
            if not isinstance(part, UserPromptPart) or isinstance(part.content, str):
                continue
            content: list[UserContent] = []
            for item in part.content:
                digest = find_digest(item)
                if digest is None or skipped:
                    skipped -= digest is not None
                    content.append(item)
                else:
                    content.append(attachments.get(digest, item))
            parts[index] = replace(part, content=content)
        restored.append(_with_parts(message, parts))
    return restored


def _items(message: ModelMessage) -> list[UserContent]:
    parts = [part for part in message.parts if isinstance(part, UserPromptPart)]
    return [item for part in parts if not isinstance(part.content, str) for item in part.content]


def find_digest(item: UserContent) -> str | None:
    """Returns the digest of a file's placeholder; None for other content."""
    if not isinstance(item, TextContent) or not isinstance(item.metadata, dict):
        return None
    digest = cast("dict[str, Any]", item.metadata).get(_DIGEST)  # metadata is arbitrary JSON
    return digest if isinstance(digest, str) else None


def _detach(message: ModelMessage, attachments: dict[str, BinaryContent]) -> ModelMessage:
    parts = list(message.parts)
    for index, part in enumerate(parts):
        if isinstance(part, UserPromptPart) and not isinstance(part.content, str):
            parts[index] = replace(part, content=[_detach_item(item, attachments) for item in part.content])
        elif isinstance(part, BaseToolReturnPart):
            parts[index] = replace(part, content=_without_files(part.content))
        elif isinstance(part, FilePart):
            parts[index] = TextPart(_as_text(part.content))
    return _with_parts(message, parts)


def _detach_item(item: UserContent, attachments: dict[str, BinaryContent]) -> UserContent:
    # Every provider inlines a text file: it is text, not a file to look at.
    if not isinstance(item, BinaryContent) or item.media_type.startswith("text/"):
        return item
    digest = hashlib.sha256(item.data).hexdigest()
    attachments[digest] = item
    return TextContent(_as_text(item), metadata={_DIGEST: digest})


def _without_files(content: object) -> object:
    if isinstance(content, BinaryContent):
        return _as_text(content)
    if isinstance(content, list | tuple):
        return [_without_files(item) for item in cast("Sequence[object]", content)]
    if isinstance(content, dict):
        return {key: _without_files(value) for key, value in cast("dict[object, object]", content).items()}
    return content


def _as_text(file: BinaryContent) -> str:
    kind = file.media_type.partition("/")[0]
    return f"[{kind}]" if kind in {"image", "audio", "video"} else "[file]"


def _with_parts(message: ModelMessage, parts: Sequence[Any]) -> ModelMessage:
    """Returns the message with other parts. The caller ensures that their kinds fit the message."""
    if isinstance(message, ModelResponse):
        return replace(message, parts=list(parts))
    return replace(message, parts=list(parts))


def pair_tools(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Removes tool calls without a result, and results without a call.

    A stopped or interrupted turn may end in a call; providers reject requests that contain such a one.
    """
    paired: list[ModelMessage] = []
    for index, message in enumerate(messages):
        if isinstance(message, ModelResponse):
            following = messages[index + 1] if index + 1 < len(messages) else None
            result_ids = _result_ids(following) if isinstance(following, ModelRequest) else set[str]()
            native_result_ids = {part.tool_call_id for part in message.parts if isinstance(part, BaseToolReturnPart)}
            kept_parts = [
                part for part in message.parts if not _is_unanswered_call(part, result_ids, native_result_ids)
            ]
            call_ids = {part.tool_call_id for part in kept_parts if isinstance(part, BaseToolCallPart)}
            kept_parts = [
                part for part in kept_parts if not isinstance(part, BaseToolReturnPart) or part.tool_call_id in call_ids
            ]
            if kept_parts:
                paired.append(replace(message, parts=kept_parts))
        else:
            before = messages[index - 1] if index else None
            call_ids = _call_ids(before) if isinstance(before, ModelResponse) else set[str]()
            parts = [part for part in message.parts if not _is_unrequested_result(part, call_ids)]
            if parts:
                paired.append(replace(message, parts=parts))
    return paired


def _is_unanswered_call(part: object, result_ids: set[str], native_result_ids: set[str]) -> bool:
    if isinstance(part, ToolCallPart):
        return part.tool_call_id not in result_ids
    return isinstance(part, BaseToolCallPart) and part.tool_call_id not in native_result_ids


def _is_unrequested_result(part: object, call_ids: set[str]) -> bool:
    return isinstance(part, ToolReturnPart) and part.tool_call_id not in call_ids


def _result_ids(message: ModelRequest) -> set[str]:
    return {part.tool_call_id for part in message.parts if isinstance(part, ToolReturnPart)}


def _call_ids(message: ModelResponse) -> set[str]:
    return {part.tool_call_id for part in message.parts if isinstance(part, ToolCallPart)}


def load_files(connection: Connection, wanted: Sequence[tuple[int, str]]) -> dict[str, BinaryContent]:
    """Reads files by (turn id, digest)."""
    columns = select(AttachmentRow.digest, AttachmentRow.media_type, AttachmentRow.data)
    rows = connection.execute(columns.where(tuple_(AttachmentRow.turn_id, AttachmentRow.digest).in_(wanted)))
    return {row.digest: BinaryContent.narrow_type(BinaryContent(row.data, media_type=row.media_type)) for row in rows}
