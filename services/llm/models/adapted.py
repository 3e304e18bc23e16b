"""Requests in the form that a model accepts: without the capabilities that it refuses, within its context window.

A conversation is shortened at turn borders. A turn begins with the user's message and ends before the next one: a tool
call is never parted from its result. The system text, a summary and the newest turn are always kept.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydantic_ai.messages import (
    BaseToolCallPart,
    BaseToolReturnPart,
    CompactionPart,
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from services.llm.models.candidate_call import find_search, has_image, is_image
from services.llm.request import DEFAULT_MAX_TOKENS, UNCHANGED, Adaptation, Capability
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.recourse import TOOL_USE
from services.llm.usage import estimate_tokens, text_tokens

UNSEEN_IMAGE = "[an image that you cannot see]"
ANSWER_SHARE = 0.25
"""Part of a context window that is left for the answer."""
_LIMITS = frozenset(
    {"max_tokens", "temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty", "logit_bias"}
)


@dataclass(frozen=True, slots=True)
class AdaptableRequest:
    """A request, and its shape for the fallback service.

    Args:
        extra: capabilities that the request needs beyond those that its messages and parameters show.
        is_whole: no message may be left out.
    """

    messages: list[ModelMessage]
    settings: ModelSettings | None
    parameters: ModelRequestParameters
    extra: frozenset[Capability] = frozenset()
    is_whole: bool = False

    def uses(self) -> frozenset[Capability]:
        """Returns the capabilities that the request needs."""
        used = {*self.extra, Capability.SETTINGS}
        parameters = self.parameters
        if (parameters.function_tools or parameters.native_tools) and not parameters.output_tools:
            used |= TOOL_USE
        if find_search(parameters) is not None:
            used.add(Capability.WEB_SEARCH)
        if parameters.output_object is not None or parameters.output_mode == "prompted":
            used.add(Capability.STRUCTURED_OUTPUT)
        if _system_text(self.messages, parameters):
            used.add(Capability.SYSTEM_ROLE)
        if any(map(has_image, self.messages)):
            used.add(Capability.IMAGES)
        return frozenset(used)

    def has_earlier_turns(self) -> bool:
        """Returns whether something can be left out before the newest turn."""
        return not self.is_whole and has_earlier_turns(self.messages)

    def smaller(self, current: Adaptation, outcome: Outcome) -> tuple[int, bool]:
        """Returns the limit of a smaller request, in estimated tokens, and whether the request can get smaller.

        The server's count against our estimate of the same request gives the scale of the limit; where it names no
        numbers, the request is halved.
        """
        sent = self._estimate(current)
        half = max(sent // 2, 1)
        if outcome.window is not None and outcome.sent is not None:
            limit = min(int(sent * outcome.window * (1 - ANSWER_SHARE) / outcome.sent), sent - 1)
        elif outcome.window is not None:
            named = int(outcome.window * (1 - ANSWER_SHARE))
            # A request that should have fitted by our estimate: its tokens are shorter than estimated.
            limit = named if named < sent else half
        else:
            limit = half
        limit = max(limit, 1)
        return limit, not self.is_whole and self._estimate(replace(current, max_input=limit)) < sent

    def size(self) -> tuple[int, int]:
        """Returns the estimated tokens of the request, and the limit of the answer."""
        limit = (self.settings or {}).get("max_tokens") or DEFAULT_MAX_TOKENS
        return estimate_tokens(self.messages) + _overhead(self.parameters, self.messages), limit

    def apply(
        self, adaptation: Adaptation, *, sees_images: bool = True
    ) -> tuple[list[ModelMessage], ModelSettings | None, ModelRequestParameters]:
        """Returns messages, settings and parameters for one model.

        Args:
            adaptation: the changes.
            sees_images: False replaces each image by a note.
        """
        messages, parameters = self.messages, self.parameters
        without = adaptation.without
        if Capability.IMAGES in without or not sees_images:
            messages = [without_images(message) for message in messages]
        if adaptation is UNCHANGED:
            return messages, self.settings, parameters
        if adaptation.is_newest_turn:
            messages = keep_newest_turn(messages)
        is_without_tools = Capability.TOOLS in without
        if Capability.STRUCTURED_OUTPUT in without or (is_without_tools and parameters.output_tools):
            parameters = _described_structure(parameters)
        if adaptation.max_input is not None and not self.is_whole:
            messages, is_fitting = trim(messages, adaptation.max_input - _overhead(parameters, messages))
            # The description of the tools takes part of a small window: an answer matters more.
            is_without_tools = is_without_tools or (not is_fitting and bool(parameters.function_tools))
        if is_without_tools and not parameters.output_tools:
            parameters = replace(parameters, function_tools=[], native_tools=[])
            messages = [_without_tool_parts(message) for message in messages]
        if Capability.SYSTEM_ROLE in without:
            messages, parameters = _without_system_role(messages, parameters)
        settings = _without_limits(self.settings) if Capability.SETTINGS in without else self.settings
        return messages, _within(settings, adaptation), parameters

    def _estimate(self, adaptation: Adaptation) -> int:
        messages, _, parameters = self.apply(adaptation)
        return estimate_tokens(messages) + _overhead(parameters, messages)


def _overhead(parameters: ModelRequestParameters, messages: Sequence[ModelMessage]) -> int:
    """Estimates the tokens beside the messages: instructions and tools."""
    tools = [
        {"name": tool.name, "description": tool.description, "parameters": tool.parameters_json_schema}
        for tool in (*parameters.function_tools, *parameters.output_tools)
    ]
    instructions = _instructions(messages, parameters)
    return text_tokens("\n".join(instructions)) + (text_tokens(json.dumps(tools)) if tools else 0)


def _instructions(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> list[str]:
    if parameters.instruction_parts is not None:
        return [part.content for part in parameters.instruction_parts]
    newest = next((message for message in reversed(messages) if isinstance(message, ModelRequest)), None)
    return [newest.instructions] if newest is not None and newest.instructions else []


def _without_limits(settings: ModelSettings | None) -> ModelSettings:
    """Returns settings without the limit of the answer and the sampling."""
    left = {name: value for name, value in (settings or {}).items() if name not in _LIMITS}
    return cast("ModelSettings", left)


def _within(settings: ModelSettings | None, adaptation: Adaptation) -> ModelSettings | None:
    """Returns the settings with an answer that leaves room for the request in a small window."""
    limit = settings.get("max_tokens") if settings is not None else None
    if settings is None or limit is None or adaptation.window is None:
        return settings
    return ModelSettings({**settings, "max_tokens": max(min(limit, int(adaptation.window * ANSWER_SHARE)), 16)})


def _system_text(messages: Sequence[ModelMessage], parameters: ModelRequestParameters) -> list[str]:
    prompts = [
        part.content
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, SystemPromptPart)
    ]
    return [*prompts, *_instructions(messages, parameters)]


def _without_system_role(
    messages: Sequence[ModelMessage], parameters: ModelRequestParameters
) -> tuple[list[ModelMessage], ModelRequestParameters]:
    """Puts the system text in front of the first user message."""
    text = "\n\n".join(_system_text(messages, parameters))
    changed: list[ModelMessage] = []
    is_placed = not text
    for message in messages:
        if not isinstance(message, ModelRequest):
            changed.append(message)
            continue
        parts: list[ModelRequestPart] = []
        for part in message.parts:
            if isinstance(part, SystemPromptPart):
                continue
            if isinstance(part, UserPromptPart) and not is_placed:
                is_placed = True
                content = f"{text}\n\n{part.content}" if isinstance(part.content, str) else [text, *part.content]
                parts.append(replace(part, content=content))
            else:
                parts.append(part)
        if parts:
            changed.append(replace(message, parts=parts, instructions=None))
    if not is_placed:
        changed.insert(0, ModelRequest([UserPromptPart(text)]))
    return changed, replace(parameters, instruction_parts=[])


def _without_tool_parts(message: ModelMessage) -> ModelMessage:
    """Returns the message with tool calls and their results as text: a model without tools accepts neither."""
    if isinstance(message, ModelResponse):
        responses: list[ModelResponsePart] = [
            TextPart(f"[Called {part.tool_name}]") if isinstance(part, BaseToolCallPart) else part
            for part in message.parts
            if not isinstance(part, BaseToolReturnPart)
        ]
        return replace(message, parts=responses)
    parts: list[ModelRequestPart] = []
    for part in message.parts:
        match part:
            case BaseToolReturnPart():
                parts.append(UserPromptPart(f"[Result of {part.tool_name}: {part.model_response_str()}]"))
            case _:
                parts.append(part)
    return replace(message, parts=parts)


def without_images(message: ModelMessage) -> ModelMessage:
    """Returns the message with a note in place of each image, for a model without vision."""
    if not isinstance(message, ModelRequest) or not has_image(message):
        return message
    parts = [
        replace(part, content=[UNSEEN_IMAGE if is_image(item) else item for item in part.content])
        if isinstance(part, UserPromptPart) and not isinstance(part.content, str)
        else part
        for part in message.parts
    ]
    return replace(message, parts=parts)


def _described_structure(parameters: ModelRequestParameters) -> ModelRequestParameters:
    """Returns parameters that ask for a structure in words, for a model that refuses tools or schemas."""
    wanted = parameters.output_object
    if wanted is None:
        # JSON of any shape was asked for: the prompt says so already.
        return replace(parameters, output_mode="text") if parameters.output_mode == "prompted" else parameters
    schema = json.dumps(wanted.json_schema)
    told = InstructionPart(content=f"Answer with one JSON object that matches this schema, and nothing else:\n{schema}")
    return replace(
        parameters,
        output_mode="text",
        output_object=None,
        output_tools=[],
        allow_text_output=True,
        instruction_parts=[*(parameters.instruction_parts or ()), told],
    )


def trim(messages: Sequence[ModelMessage], limit: int) -> tuple[list[ModelMessage], bool]:
    """Returns the newest turns within a limit, and whether they are within it.

    Args:
        messages: the whole conversation.
        limit: limit in estimated tokens.
    """
    if estimate_tokens(messages) <= limit:
        return list(messages), True
    starts = _turn_starts(messages)
    for start in starts[1:]:
        kept = _with_system(_lasting_parts(messages[:start]), messages[start:])
        if estimate_tokens(kept) <= limit:
            return kept, True
    kept = keep_newest_turn(messages)
    return kept, estimate_tokens(kept) <= limit


def keep_newest_turn(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Returns the newest turn, with the system text of the earlier ones."""
    starts = _turn_starts(messages)
    if not starts or starts[-1] == 0:
        return list(messages)
    return _with_system(_lasting_parts(messages[: starts[-1]]), messages[starts[-1] :])


def has_earlier_turns(messages: Sequence[ModelMessage]) -> bool:
    """Returns whether something comes before the newest turn."""
    starts = _turn_starts(messages)
    return bool(starts) and starts[-1] > 0


def _turn_starts(messages: Sequence[ModelMessage]) -> list[int]:
    return [
        place
        for place, message in enumerate(messages)
        if isinstance(message, ModelRequest) and any(isinstance(part, UserPromptPart) for part in message.parts)
    ]


def _lasting_parts(messages: Sequence[ModelMessage]) -> list[ModelRequestPart]:
    return [
        part
        for message in messages
        if isinstance(message, ModelRequest)
        for part in message.parts
        if isinstance(part, SystemPromptPart | CompactionPart)
    ]


def _with_system(system: Sequence[ModelRequestPart], messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    first = messages[0]
    if not system or not isinstance(first, ModelRequest):
        return list(messages)
    own = [part for part in first.parts if isinstance(part, SystemPromptPart)]
    rest = [part for part in first.parts if not isinstance(part, SystemPromptPart)]
    return [replace(first, parts=[*system, *own, *rest]), *messages[1:]]
