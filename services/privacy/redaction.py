"""Removes a person from stored JSON: the transcripts of groups, and copies of updates."""

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from services.privacy.registry import ANYONE, Person

ERASED_PAYLOAD = '{"kind":"erased"}'
"""Payload of a job whose message was erased; executing it does nothing."""
ERASED_LANE = "erased"
SHORTEST_NAME = 2
_TEXTS = frozenset({"content", "args", "transcript"})
"""Fields of a transcript that hold text; names of kinds and tools are not changed."""
_SPEAKER = re.compile(r'("(?:[^"\\]|\\.)*"|[^\n:]{1,200}): ')
_AFTER_QUOTE = "[The message itself:]\n"
_UPDATE_FIELDS = frozenset({"message_id", "date", "chat", "message_thread_id", "is_topic_message"})
"""Fields kept of a quoted message by another person."""


class NameErasure:
    """Replaces the names of a person.

    Args:
        names: known names; the first name alone is replaced in the person's own turns only, where it cannot mean
            another one.
    """

    def __init__(self, names: Sequence[str | None]) -> None:
        known = [name for name in dict.fromkeys(names) if name and len(name) >= SHORTEST_NAME and name != ANYONE]
        self.whole = [name for name in known if name.startswith("@") or not _is_first_of(name, known)]
        self._everywhere = _pattern(self.whole)
        self._own = _pattern([*known, *(name.split()[0] for name in known if len(name.split()[0]) >= SHORTEST_NAME)])

    def in_text(self, text: str, *, is_own: bool = True) -> str:
        """Returns a text without the names."""
        pattern = self._own if is_own else self._everywhere
        return text if pattern is None else pattern.sub(ANYONE, text)

    def in_transcript(self, stored: str, *, is_own: bool) -> str:
        """Returns stored messages without the names; in the person's own turn, without the data of tools too."""
        try:
            messages: Any = json.loads(stored)  # Any: of any version
        except ValueError:
            return "[]"
        return json.dumps(self._walk(messages, is_own=is_own, is_text=False), ensure_ascii=True, separators=(",", ":"))

    def _walk(self, tree: object, *, is_own: bool, is_text: bool) -> object:
        if isinstance(tree, str):
            return self.in_text(tree, is_own=is_own) if is_text else tree
        if isinstance(tree, list):
            return [self._walk(each, is_own=is_own, is_text=is_text) for each in cast("list[Any]", tree)]
        if not isinstance(tree, dict):
            return tree
        fields = cast("dict[str, Any]", tree)
        if is_own and fields.get("part_kind") == "tool-call":
            return {**fields, "args": "{}"}
        if is_own and fields.get("part_kind") in {"tool-return", "retry-prompt"}:
            return {**fields, "content": ""}
        return {
            name: self._walk(value, is_own=is_own, is_text=is_text or name in _TEXTS) for name, value in fields.items()
        }


def speaker_name(prompt: str) -> str | None:
    """Returns the name before the message of a group's stored prompt."""
    try:
        messages: Any = json.loads(prompt)  # Any: of any version
        content = messages[0]["parts"][0]["content"]
        first = content if isinstance(content, str) else content[0]
        # A transcript of speech has metadata.
        text: Any = cast("dict[str, Any]", first)["content"] if isinstance(first, dict) else first  # Any: as above
    except (ValueError, LookupError, TypeError):
        return None
    found = _SPEAKER.match(text.rpartition(_AFTER_QUOTE)[2]) if isinstance(text, str) else None
    if found is None:
        return None
    name = found[1]
    return json.loads(name) if name.startswith('"') else name


def erase_json(stored: str, person: Person, until_s: float | None = None) -> str | None:
    """Returns a stored payload without a person; None where it does not concern the person.

    A message by the person becomes `ERASED_PAYLOAD`; of another's message that quotes the person the rest stays.

    Args:
        until_s: newer messages are kept, in seconds since the epoch; None for all.
    """
    try:
        tree: Any = json.loads(stored)  # Any: of any version
    except ValueError:
        return None
    if not _mentions(tree, person.user_id):
        return None
    if _is_by(tree, person.user_id):
        return None if until_s is not None and _date(tree) > until_s else ERASED_PAYLOAD
    return json.dumps(_without(tree, person.user_id), separators=(",", ":"))


def _mentions(tree: object, user_id: int) -> bool:
    if isinstance(tree, dict):
        fields = cast("dict[str, Any]", tree)
        if any(fields.get(name) == user_id for name in ("id", "user_id", "chat_id", "speaker_id")):
            return True
        return any(_mentions(value, user_id) for value in fields.values())
    return isinstance(tree, list) and any(_mentions(each, user_id) for each in cast("list[Any]", tree))


def _is_by(tree: object, user_id: int) -> bool:
    """Returns whether a payload is of the person: sent by them, about their membership, or in their private chat."""
    if not isinstance(tree, dict):
        return False
    fields = cast("dict[str, Any]", tree)
    if any(fields.get(name) == user_id for name in ("user_id", "chat_id", "speaker_id")):
        return True
    speaker, update = fields.get("speaker"), fields.get("update", fields)
    if isinstance(speaker, dict) and cast("dict[str, Any]", speaker).get("user_id") == user_id:
        return True
    values = cast("dict[str, object]", update).values() if isinstance(update, dict) else ()
    contents = [cast("dict[str, object]", value) for value in values if isinstance(value, dict)]
    return any(
        _id(content, "from") == user_id or _id(content, "chat") == user_id or _id(content, "user") == user_id
        or _id(content.get("new_chat_member"), "user") == user_id
        for content in contents
    )  # fmt: skip


def _id(content: object, name: str) -> int | None:
    party = cast("dict[str, Any]", content).get(name) if isinstance(content, dict) else None
    number = cast("dict[str, Any]", party).get("id") if isinstance(party, dict) else None
    return number if isinstance(number, int) else None


def _date(tree: dict[str, Any]) -> float:
    update = tree.get("update", tree)
    for content in cast("dict[str, Any]", update).values() if isinstance(update, dict) else ():
        date = cast("dict[str, Any]", content).get("date") if isinstance(content, dict) else None
        if isinstance(date, int):
            return float(date)
    return 0.0


def _without(tree: object, user_id: int) -> object:
    if isinstance(tree, list):
        return [_without(each, user_id) for each in cast("list[Any]", tree)]
    if not isinstance(tree, dict):
        return tree
    fields = cast("dict[str, Any]", tree)
    if fields.get("id") == user_id:
        return {"id": 0, "is_bot": False, "first_name": ANYONE}
    if _id(fields, "from") == user_id:
        fields = {name: value for name, value in fields.items() if name in _UPDATE_FIELDS}
    return {name: _without(value, user_id) for name, value in fields.items()}


def _pattern(names: Sequence[str]) -> re.Pattern[str] | None:
    ordered = sorted(set(names), key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)") if ordered else None


def _is_first_of(name: str, names: Sequence[str]) -> bool:
    """Returns whether a name is the beginning of a longer one, as a first name is."""
    return any(other.startswith(f"{name} ") for other in names)
