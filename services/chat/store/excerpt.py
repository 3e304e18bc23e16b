"""Shortens a turn that alone exceeds the budget of a history."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    TextContent,
    TextPart,
    UserContent,
    UserPromptPart,
)

from services.chat.store.transcript import find_digest
from services.llm.usage import BYTES_A_TOKEN, MESSAGE_TOKENS, item_tokens, text_tokens

_GAP = "\n[...]\n "
"""After a gap the line goes on with a space: its rest must not look like the beginning of another message."""


_LEAST_TOKENS = 16
"""A shorter excerpt of a text carries no meaning."""


def cut_turn(messages: Sequence[ModelMessage], token_budget: int) -> list[ModelMessage]:
    """Shortens a turn that alone exceeds the budget to its prompt and last answer, each cut in the middle.

    Tool calls and results are dropped: the answer was derived from them. Returns nothing if even that does not fit.
    """
    files = [item for message in messages for item in _files(message)]
    prompt = "\n".join(filter(None, map(_prompt_text, messages)))
    answers = [message for message in messages if isinstance(message, ModelResponse) and _answer_text(message)]
    answer = _answer_text(answers[-1]) if answers else ""
    available = token_budget - (2 if answer else 1) * MESSAGE_TOKENS - sum(map(item_tokens, files))
    if available < 2 * _LEAST_TOKENS:
        return []
    # Each side gets half of the budget, plus the unused part of the other side's.
    answer_tokens = min(text_tokens(answer), max(available // 2, available - text_tokens(prompt)))
    short = _shorten(prompt, available - answer_tokens)
    part = UserPromptPart([short, *files] if files else short)
    cut: list[ModelMessage] = [ModelRequest(parts=[part], timestamp=messages[0].timestamp)]
    if answer:
        cut.append(replace(answers[-1], parts=[TextPart(_shorten(answer, answer_tokens))]))
    return cut


def _files(message: ModelMessage) -> list[UserContent]:
    """Returns the parts of a prompt that are not the user's text: files, and placeholders of files."""
    prompts = [part.content for part in message.parts if isinstance(part, UserPromptPart)]
    items = [item for content in prompts if not isinstance(content, str) for item in content]
    return [item for item in items if _user_text(item) is None]


def _user_text(item: UserContent) -> str | None:
    if isinstance(item, str):
        return item
    if isinstance(item, TextContent) and find_digest(item) is None:
        return item.content
    if isinstance(item, BinaryContent) and item.media_type.startswith("text/"):
        return item.data.decode(errors="replace")
    return None


def _prompt_text(message: ModelMessage) -> str:
    prompts = [part.content for part in message.parts if isinstance(part, UserPromptPart)]
    texts = [[content] if isinstance(content, str) else map(_user_text, content) for content in prompts]
    return "\n".join(text for some in texts for text in some if text)


def _answer_text(message: ModelResponse) -> str:
    return "".join(part.content for part in message.parts if isinstance(part, TextPart))


def _shorten(text: str, tokens: int) -> str:
    """Returns the start and the end of a text within a number of tokens."""
    whole = text.encode(errors="replace")
    limit = tokens * BYTES_A_TOKEN
    if len(whole) <= limit:
        return text
    available = limit - len(_GAP)
    if available <= 0:
        return whole[: max(limit, 0)].decode(errors="ignore")
    head = whole[: available - available // 2].decode(errors="ignore")
    tail = whole[len(whole) - available // 2 :].decode(errors="ignore")
    return head + _GAP + tail
