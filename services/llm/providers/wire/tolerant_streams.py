"""Streamed responses that accept the deviations of servers from the chat-completions protocol.

- Tool calls with the same index, or with none, are told apart by their ids and names.
- Usage that grows from chunk to chunk is taken once.
- Thinking between `<think>` tags, in any model's spelling, stays thinking however its tags are split over chunks; so
  does the thinking of models whose template writes the first tag, which is not in their answers.
- An end marker without a finish reason is a cut answer, and from the third in a row on the way of a server that never
  gives a reason.
- A finish reason that text follows is no finish reason: some servers put one into every chunk.

Overrides private API of pydantic-ai 2.68; the contract tests are
tests/services/llm/providers/wire/test_tolerant_streams.py.
"""

from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, TypedDict, TypeVar, Unpack

from pydantic_ai._parts_manager import ModelResponsePartsManager
from pydantic_ai.exceptions import ModelAPIError
from pydantic_ai.messages import Citation, ModelResponseStreamEvent, TextPart, ToolCallPart
from pydantic_ai.models import ModelRequestParameters, StreamedResponse
from pydantic_ai.usage import RequestUsage

from services.llm.providers.wire.call_pieces import CallPieces
from services.llm.providers.wire.event_stream import EventStream
from services.llm.providers.wire.thinking_tags import LONE_CLOSING, TAG_BEGINNINGS, ThinkingHabit, ThinkingTags


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
    """Assembles the parts of a response from deltas.

    Args:
        model_request_parameters: parameters of the request.
        habit: how the model begins its thinking.
    """

    def __init__(self, model_request_parameters: ModelRequestParameters, habit: ThinkingHabit | None = None) -> None:
        super().__init__(model_request_parameters=model_request_parameters)
        self._habit = habit or ThinkingHabit()

    @cached_property
    def _tool_calls(self) -> dict[Hashable, CallPieces]:
        return {}

    @cached_property
    def _all_calls(self) -> list[CallPieces]:
        return []

    @cached_property
    def _thinking_tags(self) -> dict[tuple[str, str], ThinkingTags | None]:
        """By the library's tags; None for a text that does not begin with thinking."""
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
            tags = self._tags_of(thinking_tags, content)
            if tags is not None:
                pieces = tags.split(content)
                self._text_arguments: dict[str, Any] = {
                    "vendor_part_id": vendor_part_id, "thinking_tags": thinking_tags, **more
                }  # fmt: skip
            elif content in thinking_tags:
                # The library takes a piece that equals a tag for one.
                pieces = (content[:1], content[1:])
        for piece in pieces:
            yield from super().handle_text_delta(
                vendor_part_id=vendor_part_id, content=piece, thinking_tags=thinking_tags, **more
            )

    def _tags_of(self, thinking_tags: tuple[str, str], beginning: str) -> ThinkingTags | None:
        """Returns the splitter of a text; None where its first piece shows that it does not begin with thinking."""
        if thinking_tags not in self._thinking_tags:
            first = beginning.lstrip()[:1]
            is_plain = first and first not in TAG_BEGINNINGS and first != thinking_tags[0][:1]
            self._thinking_tags[thinking_tags] = (
                None
                if is_plain and not self._habit.is_opened_by_template
                else ThinkingTags(*thinking_tags, self._habit)
            )
        return self._thinking_tags[thinking_tags]

    def flush_text(self, *, is_end: bool) -> Iterator[ModelResponseStreamEvent]:
        """Handles text that was held back since it might have been the beginning of a tag."""
        for tags in filter(None, self._thinking_tags.values()):
            for piece in tags.flush(is_end=is_end):
                yield from super().handle_text_delta(content=piece, **self._text_arguments)

    def end_text(self, *, is_cut: bool) -> Iterator[ModelResponseStreamEvent]:
        """Handles the end of an answer, at which its thinking may turn out to be none; learns how its text begins."""
        yield from self.flush_text(is_end=True)
        self.end_calls()
        for tags in filter(None, self._thinking_tags.values()):
            for piece in tags.end(is_cut=is_cut):
                yield from super().handle_text_delta(content=piece, **self._text_arguments)
        if self._thinking_tags:
            text = "".join(part.content for part in self.get_parts() if isinstance(part, TextPart))
            if LONE_CLOSING.search(text) is not None:
                self._habit.learn(text)

    def end_calls(self) -> None:
        """Puts the whole arguments into calls whose pieces repeat each other."""
        for call in self._all_calls:
            index, args = self._vendor_id_to_part_index.get(call.key), call.find_whole_args()
            if index is None or args is None:
                continue
            part = self._materialize_and_cache_part(index)
            if isinstance(part, ToolCallPart):
                self._replace_part(index, replace(part, args=args))

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
            call = self._tool_calls[vendor_part_id] = CallPieces((vendor_part_id, len(self._parts)))
            self._all_calls.append(call)
        call.call_id = call.call_id or tool_call_id or None
        if args:
            call.args.append(args)
        return super().handle_tool_call_delta(
            vendor_part_id=call.key,
            tool_name=call.add_name(tool_name),
            args=args,
            tool_call_id=tool_call_id or None,
            **more,
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


ENDS_TO_BELIEVE = 3
"""Answers in a row with an end marker and no finish reason that prove that their server sends none."""


@dataclass
class StreamHabits:
    """Observations of the streams of one model.

    Args:
        thinking: how its thinking begins.
        unexplained_ends: streams with an end marker and no finish reason: an answer that was cut, or a server that
            never sends a reason.
        gives_reasons: whether one had a finish reason.
    """

    thinking: ThinkingHabit = field(default_factory=ThinkingHabit)
    unexplained_ends: int = 0
    gives_reasons: bool = False

    def believes_end(self) -> bool:
        """Counts an unexplained end; returns whether it is believed to be one."""
        self.unexplained_ends += 1
        return not self.gives_reasons and self.unexplained_ends >= ENDS_TO_BELIEVE


class HabitualModel:
    """A model whose streams share the habits seen in earlier ones."""

    @cached_property
    def habits(self) -> StreamHabits:
        """The habits of its streams."""
        return StreamHabits()


@dataclass
class TolerantStream(StreamedResponse):
    """Common base of the streams with this protocol; it comes before the library's own class."""

    habits: StreamHabits = field(init=False)
    """Those of the model, over its answers; set before the stream is read."""
    _has_output: bool = field(default=False, init=False)
    _has_finished_before: bool = field(default=False, init=False)
    _is_finish_reliable: bool = field(default=True, init=False)

    @cached_property
    def _parts_manager(self) -> TolerantParts:
        return TolerantParts(self.model_request_parameters, self.habits.thinking)

    @property
    def is_finish_reliable(self) -> bool:
        """False if text has followed a finish reason."""
        return self._is_finish_reliable

    @property
    def is_ended_by_server(self) -> bool:
        """True if the end marker has arrived, or a body of known length has ended."""
        return self.received.is_ended

    @property
    def received(self) -> EventStream:
        """The events as the server sends them."""
        raise NotImplementedError

    async def _get_event_iterator(self) -> AsyncIterator[ModelResponseStreamEvent]:
        # A finish reason is no end: a tag may go on behind it.
        try:
            async for event in super()._get_event_iterator():  # pyright: ignore[reportAbstractUsage] - that of the kind
                yield event
        except Exception as error:
            if not self._believe_end(error):
                for event in self._parts_manager.flush_text(is_end=True):
                    yield event
                raise
        else:
            self._believe_end(None)
        for event in self.end_text():
            yield event

    def end_text(self) -> Iterator[ModelResponseStreamEvent]:
        """Handles text that is still held back at the end of the stream, by its silence too."""
        yield from self._parts_manager.end_text(is_cut=self.finish_reason == "length")

    def _believe_end(self, error: Exception | None) -> bool:
        """Takes an end without a finish reason for one of a whole answer where the server never gives a reason."""
        is_about_end = error is None or (isinstance(error, ModelAPIError) and "finish_reason" in error.message)
        is_unexplained = self._has_output and not self._has_finished_before and self.received.is_marked
        if not (is_about_end and is_unexplained and self.habits.believes_end()):
            return False
        self.finish_reason = "stop"
        return True

    def note_chunk(self, *, has_output: bool, finish_reason: str | None) -> None:
        """Takes note of a chunk, before its parts are handled."""
        if self._has_finished_before and has_output:
            self._is_finish_reliable = False
        self._has_output = self._has_output or has_output
        self._has_finished_before = self._has_finished_before or bool(finish_reason)
        self.habits.gives_reasons = self.habits.gives_reasons or bool(finish_reason)

    def _add_usage(self, usage: RequestUsage, *, reported: bool, cumulative: bool = False) -> None:
        """Replaces the usage: every server reports the sum so far, whether once or in each chunk."""
        super()._add_usage(usage, reported=reported, cumulative=cumulative or reported)


StreamT = TypeVar("StreamT", bound=TolerantStream)


def to_tolerant(stream: StreamedResponse, stream_class: type[StreamT], habits: StreamHabits) -> StreamT:
    """Returns a stream of the library as one of a tolerant class."""
    tolerant = stream_class(**{each.name: getattr(stream, each.name) for each in fields(stream) if each.init})
    tolerant.habits = habits
    return tolerant
