"""Streamed responses that accept the deviations of servers from the chat-completions protocol.

- Tool calls with the same index, or with none, are told apart by their ids and names.
- Usage that grows from chunk to chunk is taken once.
- Thinking between `<think>` tags, in any model's spelling, stays thinking however its tags are split over chunks.
- A finish reason that text follows is no finish reason: some servers put one into every chunk.

Overrides private API of pydantic-ai 2.68; the contract tests are
tests/services/llm/providers/wire/test_tolerant_streams.py.
"""

import json
import re
from collections.abc import AsyncIterator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict, Unpack

from pydantic_ai._parts_manager import ModelResponsePartsManager
from pydantic_ai.messages import Citation, ModelResponseStreamEvent
from pydantic_ai.models import StreamedResponse
from pydantic_ai.usage import RequestUsage

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
_ANGLED = tuple(f"</{name}>" for name in _NAMES)
_OPENINGS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((f"<{name}>" for name in _NAMES), _ANGLED),
    # Mistral's, Kimi's, Cohere's, and two of models that were trained on the output of others.
    "[think]": ("[/think]",),
    "\u25c1think\u25b7": ("\u25c1/think\u25b7",),
    "<|start_thinking|>": ("<|end_thinking|>",),
    "<|begin_of_thought|>": ("<|end_of_thought|>",),
    "<|thinking|>": ("<|/thinking|>",),
    # OpenAI's open models, where a server does not read their channels.
    "<|channel|>analysis<|message|>": ("<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>"),
}
"""Spellings of the tag before thinking, in lower case, each with those that end it. Models mix the names of tags."""
_LONGEST_OPENING = max(map(len, _OPENINGS))
_MOST_WHITE_SPACE = 1024
"""Characters before an opening tag that are held: each piece of an answer looks at them anew."""


class ThinkingTags:
    """Splits text so that thinking tags stand alone, in the spelling that the library's parser expects.

    An opening tag counts at the beginning of a text only; white space before it is dropped with it.
    """

    def __init__(self, opening: str, closing: str) -> None:
        self._opening = opening
        self._closing = closing
        self._openings = _OPENINGS if opening in _OPENINGS else {**_OPENINGS, opening.lower(): (closing.lower(),)}
        self._closings: tuple[str, ...] = ()
        """The tags that end the thinking that has begun."""
        self._held = ""
        self._is_at_start = True

    def split(self, piece: str) -> list[str]:
        """Returns the pieces that are known by now; the rest is held back."""
        if not (self._closings or self._is_at_start):
            return [piece]
        text, self._held = self._held + piece, ""
        pieces: list[str] = []
        while text:
            if self._closings:
                text = self._split_thinking(text, pieces)
            elif self._is_at_start:
                text = self._split_start(text, pieces)
            else:
                pieces.append(text)
                break
        return pieces

    def flush(self, *, is_end: bool) -> list[str]:
        """Returns the text that is held back: all of it at the end, the part outside thinking before a tool call."""
        if self._closings and not is_end:
            return []
        held, self._held = self._held, ""
        return [held] if held else []

    def _split_start(self, text: str, pieces: list[str]) -> str:
        stripped = text.lstrip()
        beginning = stripped[:_LONGEST_OPENING].lower()
        opening = next(filter(beginning.startswith, self._openings), None)
        if opening is not None:
            self._closings = self._openings[opening]
            pieces.append(self._opening)
            return stripped[len(opening) :]
        is_short = len(text) - len(stripped) <= _MOST_WHITE_SPACE
        if is_short and any(each.startswith(beginning) for each in self._openings):
            self._held = text
            return ""
        self._is_at_start = False
        return text

    def _split_thinking(self, text: str, pieces: list[str]) -> str:
        found = re.search("|".join(map(re.escape, self._closings)), text, re.IGNORECASE)
        if found is not None:
            self._closings = ()
            before = text[: found.start()]
            pieces += [before, self._closing] if before else [self._closing]
            return text[found.end() :]
        held = max(_overlap(text, closing) for closing in self._closings)
        self._held = text[len(text) - held :]
        if rest := text[: len(text) - held]:
            pieces.append(rest)
        return ""


def _overlap(text: str, tag: str) -> int:
    """Returns the length of the longest end of the text that begins the tag."""
    end = text[1 - len(tag) :].lower()
    return next((length for length in range(len(tag) - 1, 0, -1) if end.endswith(tag[:length])), 0)


_MAX_PARSES = 32
"""Times that the arguments of one call are parsed: a server may repeat its name with each of 80,000 pieces."""


@dataclass
class _ToolCallParts:
    """The latest tool call under one index."""

    key: Hashable
    call_id: str | None = None
    name: str | None = None
    args: list[str | dict[str, Any]] = field(default_factory=list[str | dict[str, Any]])
    parses_left: int = _MAX_PARSES

    def is_another(self, call_id: str | None, name: str | None) -> bool:
        """Returns whether a delta begins another call: by another id, or without ids, a name after whole arguments."""
        if call_id and self.call_id:
            return call_id != self.call_id
        return bool(name) and not call_id and self._has_whole_args()

    def _has_whole_args(self) -> bool:
        if any(isinstance(part, dict) for part in self.args):
            return True
        if not str(self.args[-1] if self.args else "").rstrip().endswith("}") or not self.parses_left:
            return False
        self.parses_left -= 1
        try:
            json.loads("".join(part for part in self.args if isinstance(part, str)))
        except ValueError:
            return False
        return True


class _ProviderDetails(TypedDict, total=False):
    """Arguments of the library's own methods that are handed on."""

    provider_name: str | None
    provider_details: dict[str, Any] | None


class _TextDetails(_ProviderDetails, total=False):
    id: str | None
    citations: list[Citation] | None
    ignore_leading_whitespace: bool


class _ToolCallDetails(_ProviderDetails, total=False):
    tool_name: str | None
    args: str | dict[str, Any] | None
    tool_call_id: str | None


class TolerantParts(ModelResponsePartsManager):
    """Assembles the parts of a response from deltas."""

    @cached_property
    def _tool_calls(self) -> dict[Hashable, _ToolCallParts]:
        return {}

    @cached_property
    def _thinking_tags(self) -> dict[tuple[str, str], ThinkingTags]:
        return {}

    def handle_text_delta(
        self,
        *,
        vendor_part_id: Hashable | None,
        content: str,
        thinking_tags: tuple[str, str] | None = None,
        **more: Unpack[_TextDetails],
    ) -> Iterator[ModelResponseStreamEvent]:
        """Handles text as the library does, with thinking tags that may be split."""
        pieces: Sequence[str] = (content,)
        if thinking_tags is not None:
            tags = self._thinking_tags.setdefault(thinking_tags, ThinkingTags(*thinking_tags))
            pieces = tags.split(content)
            self._text_arguments: dict[str, Any] = {
                "vendor_part_id": vendor_part_id, "thinking_tags": thinking_tags, **more
            }  # fmt: skip
        for piece in pieces:
            yield from super().handle_text_delta(
                vendor_part_id=vendor_part_id, content=piece, thinking_tags=thinking_tags, **more
            )

    def flush_text(self, *, is_end: bool) -> Iterator[ModelResponseStreamEvent]:
        """Handles text that was held back since it might have been the beginning of a tag."""
        for tags in self._thinking_tags.values():
            for piece in tags.flush(is_end=is_end):
                yield from super().handle_text_delta(content=piece, **self._text_arguments)

    def handle_tool_call_delta(
        self,
        *,
        vendor_part_id: Hashable | None,
        tool_name: str | None = None,
        args: str | dict[str, Any] | None = None,
        tool_call_id: str | None = None,
        **more: Unpack[_ProviderDetails],
    ) -> ModelResponseStreamEvent | None:
        """Handles a piece of a tool call as the library does, under a key of its own for each call."""
        call = self._tool_calls.get(vendor_part_id)
        if call is None or call.is_another(tool_call_id, tool_name):
            call = self._tool_calls[vendor_part_id] = _ToolCallParts((vendor_part_id, len(self._parts)))
        call.call_id = call.call_id or tool_call_id or None
        if args:
            call.args.append(args)
        return super().handle_tool_call_delta(
            vendor_part_id=call.key, tool_name=tool_name or None, args=args, tool_call_id=tool_call_id or None, **more
        )

    def handle_tool_call_delta_events(
        self,
        *,
        vendor_part_id: Hashable | None,
        **more: Unpack[_ToolCallDetails],
    ) -> Iterator[ModelResponseStreamEvent]:
        """Handles a piece of a tool call, after text that stands before it."""
        yield from self.flush_text(is_end=False)
        yield from super().handle_tool_call_delta_events(vendor_part_id=vendor_part_id, **more)


@dataclass
class TolerantStream(StreamedResponse):
    """Common base of the streams with this protocol; it comes before the library's own class."""

    _has_finished_before: bool = field(default=False, init=False)
    _is_finish_reliable: bool = field(default=True, init=False)

    @cached_property
    def _parts_manager(self) -> TolerantParts:
        return TolerantParts(model_request_parameters=self.model_request_parameters)

    @property
    def is_finish_reliable(self) -> bool:
        """False if text has followed a finish reason."""
        return self._is_finish_reliable

    @property
    def is_ended_by_server(self) -> bool:
        """True if the end marker has arrived, or a body of known length has ended."""
        raise NotImplementedError

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        # A finish reason is no end: a tag may go on behind it.
        try:
            async for event in super()._get_event_iterator():  # pyright: ignore[reportAbstractUsage] - that of the kind
                yield event
        except Exception:
            for event in self._parts_manager.flush_text(is_end=True):
                yield event
            raise
        for event in self._parts_manager.flush_text(is_end=True):
            yield event

    def flush_text(self) -> Iterator[ModelResponseStreamEvent]:
        """Handles text that is still held back where the stream ended by its silence."""
        yield from self._parts_manager.flush_text(is_end=True)

    def note_chunk(self, *, has_output: bool, finish_reason: str | None) -> None:
        """Takes note of a chunk, before its parts are handled."""
        if self._has_finished_before and has_output:
            self._is_finish_reliable = False
        self._has_finished_before = self._has_finished_before or bool(finish_reason)

    def _add_usage(self, usage: RequestUsage, *, reported: bool, cumulative: bool = False) -> None:
        """Replaces the usage: every server reports the sum so far, whether once or in each chunk."""
        super()._add_usage(usage, reported=reported, cumulative=cumulative or reported)
