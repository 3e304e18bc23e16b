"""Frames around what people wrote, quoted and attached, which no name and no text can imitate.

Lines of the frame begin at the margin; every further line of a person's text, and every line of a quotation or a file,
begins with a space. The same message gives the same text each time, so that providers' prompt caches keep working.
"""

import json
import re
from collections.abc import Iterator

from core.messages import ChatKind, Incoming

_ENDS = "\n\r\v\f\x1c-\x1e\x85\u2028\u2029"
"""Everything that is displayed as the end of a line."""
_LINE_END = re.compile(f"(\r\n|[{_ENDS}])")
_BARE_NAME = re.compile(r"[^\W_](?:[\w .,'&()+-]*[\w.)])?")
_ROLES = frozenset({"system", "assistant", "user", "developer", "tool", "understudy", "bot"})
_LIKE_A_FRAME = re.compile(rf"(?:^|(?<=[{_ENDS}]))(?= *\[(?:In reply to|The message itself|The file|End of the file))")


def frame(incoming: Incoming) -> str:
    """Returns a message as a model receives it: what it replies to, its speaker and text, its text files."""
    message = "\n\n".join(_parts(incoming))
    if not incoming.quoted:
        return message
    author = f" of {frame_name(incoming.quoted_from)}" if incoming.quoted_from else ""
    return f"[In reply to this message{author}:]\n{_indent(incoming.quoted)}\n[The message itself:]\n{message}"


def frame_name(name: str) -> str:
    """Returns a name as it is if it can be taken for nothing else, otherwise in quotes."""
    if name.isprintable() and _BARE_NAME.fullmatch(name) and name.casefold() not in _ROLES:
        return name
    quoted = json.dumps(name, ensure_ascii=False)
    return "".join(character if character.isprintable() else json.dumps(character)[1:-1] for character in quoted)


def _parts(incoming: Incoming) -> Iterator[str]:
    if incoming.chat_kind is ChatKind.GROUP:
        yield f"{frame_name(incoming.speaker.name)}: {_indent(incoming.text)[1:]}"
    elif incoming.text:
        # A private chat has one speaker, whose code and lists stay as they are.
        yield _LIKE_A_FRAME.sub(" ", incoming.text)
    for file in incoming.files:
        yield f"[The file {frame_name(file.name)}:]\n{_indent(file.text)}\n[End of the file]"


def _indent(text: str) -> str:
    return " " + _LINE_END.sub(r"\1 ", text)
