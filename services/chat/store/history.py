"""Fits a conversation into a token budget: estimates, selection of turns, shortening of a single long turn."""

from collections.abc import Sequence
from dataclasses import replace

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    BinaryContent,
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

from services.chat.store.transcript import find_digest
from services.llm.usage import (
    ATTACHMENT_TOKENS,
    BYTES_A_TOKEN,
    MESSAGE_TOKENS,
    item_tokens,
    text_tokens,
)

KEPT_ATTACHMENTS = 4
"""The newest files of a conversation that are sent to a model again."""

_GAP = "\n[...]\n "
"""After a gap the line goes on with a space: its rest must not look like the beginning of another message."""
_LEAST_TOKENS = 16
"""A shorter excerpt of a text carries no meaning."""


class HistoryBudget:
    """Accepts turns, newest first, while they fit.

    Args:
        tokens: budget of the history.
        attachments: files that may be included.
    """

    def __init__(self, tokens: int, attachments: int = KEPT_ATTACHMENTS) -> None:
        self.tokens = tokens
        self._attachments = attachments

    def take(self, tokens: int, attachments: int) -> bool:
        """Returns whether a turn with this text and this number of files fits, and counts it if so."""
        shown = min(attachments, self._attachments)
        cost = tokens + shown * ATTACHMENT_TOKENS
        if cost > self.tokens:
            return False
        self.tokens -= cost
        self._attachments -= shown
        return True


def starts_with_prompt(messages: Sequence[ModelMessage]) -> bool:
    """Returns whether the first message is a user's prompt."""
    return bool(messages) and any(isinstance(part, UserPromptPart) for part in messages[0].parts)


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
