"""What of a conversation still fits: estimates, the budget, and the cut of a turn that is too long by itself."""

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

from services.llm.usage.token_estimates import (
    ATTACHMENT_TOKENS,
    BYTES_A_TOKEN,
    MESSAGE_TOKENS,
    item_tokens,
    text_tokens,
)

KEPT_ATTACHMENTS = 4
"""How many of the newest files of a conversation a model is shown again."""

_GAP = "\n[...]\n"
_LEAST_TOKENS = 16
"""Less than this of a text says nothing."""


class HistoryBudget:
    """Takes turns, newest first, as long as they fit.

    Args:
        tokens: what the history may cost.
        attachments: how many files may be shown again.
    """

    def __init__(self, tokens: int, attachments: int = KEPT_ATTACHMENTS) -> None:
        self.tokens = tokens
        self._attachments = attachments

    def take(self, tokens: int, attachments: int) -> bool:
        """Whether a turn with this text and so many files still fits; if so, it is counted."""
        shown = min(attachments, self._attachments)
        cost = tokens + shown * ATTACHMENT_TOKENS
        if cost > self.tokens:
            return False
        self.tokens -= cost
        self._attachments -= shown
        return True


def starts_with_prompt(messages: Sequence[ModelMessage]) -> bool:
    """Whether the first message is a user's."""
    return bool(messages) and any(isinstance(part, UserPromptPart) for part in messages[0].parts)


def pair_tools(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """The messages without tool calls that got no result, and without results of no call.

    A turn that was stopped or broke off may end in a call; providers refuse a request that holds such a one.
    """
    paired: list[ModelMessage] = []
    for index, message in enumerate(messages):
        if isinstance(message, ModelResponse):
            following = messages[index + 1] if index + 1 < len(messages) else None
            answered = _returned(following) if isinstance(following, ModelRequest) else set[str]()
            native = {part.tool_call_id for part in message.parts if isinstance(part, BaseToolReturnPart)}
            kept = [part for part in message.parts if not _is_open(part, answered, native)]
            called = {part.tool_call_id for part in kept if isinstance(part, BaseToolCallPart)}
            kept = [part for part in kept if not isinstance(part, BaseToolReturnPart) or part.tool_call_id in called]
            if kept:
                paired.append(replace(message, parts=kept))
        else:
            before = messages[index - 1] if index else None
            asked = _called(before) if isinstance(before, ModelResponse) else set[str]()
            parts = [part for part in message.parts if not _is_stray(part, asked)]
            if parts:
                paired.append(replace(message, parts=parts))
    return paired


def cut_turn(messages: Sequence[ModelMessage], token_budget: int) -> list[ModelMessage]:
    """A turn that alone is longer than the budget, as its prompt and its last answer, shortened in their middles.

    What its tools were asked and said is left out whole: the answer was made of it. Empty where not even that fits.
    """
    files = [item for message in messages for item in _files(message)]
    prompt = "\n".join(filter(None, map(_prompt_text, messages)))
    answers = [message for message in messages if isinstance(message, ModelResponse) and _answer_text(message)]
    answer = _answer_text(answers[-1]) if answers else ""
    room = token_budget - (2 if answer else 1) * MESSAGE_TOKENS - sum(map(item_tokens, files))
    if room < 2 * _LEAST_TOKENS:
        return []
    # Each may have half; what one does not need, the other gets.
    answer_tokens = min(text_tokens(answer), max(room // 2, room - text_tokens(prompt)))
    short = _shorten(prompt, room - answer_tokens)
    part = UserPromptPart([short, *files] if files else short)
    cut: list[ModelMessage] = [ModelRequest(parts=[part], timestamp=messages[0].timestamp)]
    if answer:
        cut.append(replace(answers[-1], parts=[TextPart(_shorten(answer, answer_tokens))]))
    return cut


def _is_open(part: object, answered: set[str], native: set[str]) -> bool:
    if isinstance(part, ToolCallPart):
        return part.tool_call_id not in answered
    return isinstance(part, BaseToolCallPart) and part.tool_call_id not in native


def _is_stray(part: object, asked: set[str]) -> bool:
    return isinstance(part, ToolReturnPart) and part.tool_call_id not in asked


def _returned(message: ModelRequest) -> set[str]:
    return {part.tool_call_id for part in message.parts if isinstance(part, ToolReturnPart)}


def _called(message: ModelResponse) -> set[str]:
    return {part.tool_call_id for part in message.parts if isinstance(part, ToolCallPart)}


def _files(message: ModelMessage) -> list[UserContent]:
    """What a prompt holds beside text of the user's own: files, and the places of files."""
    prompts = [part.content for part in message.parts if isinstance(part, UserPromptPart)]
    items = [item for content in prompts if not isinstance(content, str) for item in content]
    return [item for item in items if _own_text(item) is None]


def _own_text(item: UserContent) -> str | None:
    if isinstance(item, str):
        return item
    if isinstance(item, TextContent) and item.metadata is None:
        return item.content
    if isinstance(item, BinaryContent) and item.media_type.startswith("text/"):
        return item.data.decode(errors="replace")
    return None


def _prompt_text(message: ModelMessage) -> str:
    prompts = [part.content for part in message.parts if isinstance(part, UserPromptPart)]
    texts = [[content] if isinstance(content, str) else map(_own_text, content) for content in prompts]
    return "\n".join(text for some in texts for text in some if text)


def _answer_text(message: ModelResponse) -> str:
    return "".join(part.content for part in message.parts if isinstance(part, TextPart))


def _shorten(text: str, tokens: int) -> str:
    """The beginning and the end of a text, in at most so many tokens."""
    whole = text.encode(errors="replace")
    limit = tokens * BYTES_A_TOKEN
    if len(whole) <= limit:
        return text
    room = limit - len(_GAP)
    if room <= 0:
        return whole[: max(limit, 0)].decode(errors="ignore")
    head = whole[: room - room // 2].decode(errors="ignore")
    tail = whole[len(whole) - room // 2 :].decode(errors="ignore")
    return head + _GAP + tail
