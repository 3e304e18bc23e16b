"""Answers in OpenAI's format: whole completions, and the chunks of a stream."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    ModelResponseStreamEvent,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ToolCallPart,
    ToolCallPartDelta,
)
from pydantic_ai.usage import RequestUsage

from services.llm.models.routed import last_provenance
from services.llm.usage import used_whole

DONE = b"data: [DONE]\n\n"
_FINISH = {"stop": "stop", "length": "length", "tool_call": "tool_calls", "content_filter": "content_filter"}


def encode_event(data: Mapping[str, object]) -> bytes:
    """Returns a server-sent event."""
    return b"data: " + _dumps(data) + b"\n\n"


def _dumps(data: object) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def answered_model(response: ModelResponse, fallback: str) -> str:
    """Returns `<provider>/<model>` of the candidate that answered."""
    known = last_provenance([response])
    return f"{known.provider}/{known.model}" if known is not None else fallback


def usage_of(usage: RequestUsage) -> dict[str, object]:
    """Returns token counts."""
    details = usage.details
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cache_read_tokens},
        "completion_tokens_details": {"reasoning_tokens": details.get("reasoning_tokens", 0)},
    }


def count_tokens(response: ModelResponse, sent: Sequence[ModelMessage]) -> RequestUsage:
    """Returns the tokens that a provider reported for its answer, else an estimate."""
    return used_whole(response.usage, response.parts, sent).usage


def completion(id_: str, created: int, model: str, response: ModelResponse, usage: RequestUsage) -> dict[str, object]:
    """Returns a whole completion."""
    calls = [
        {
            "id": call.tool_call_id,
            "type": "function",
            "function": {"name": call.tool_name, "arguments": _arguments(call.args) or "{}"},
        }
        for call in response.tool_calls
    ]
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    message: dict[str, object] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    finish = _finish_reason(response.finish_reason, has_calls=bool(calls))
    return {
        "id": id_,
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": usage_of(usage),
        "system_fingerprint": None,
    }


def _arguments(arguments: str | Mapping[str, Any] | None) -> str:
    # Not `args_as_json_str`, which takes a piece of JSON for broken JSON.
    if arguments is None:
        return ""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def _finish_reason(reason: str | None, *, has_calls: bool) -> str:
    finish = _FINISH.get(reason or "stop", "stop")
    return "tool_calls" if has_calls and finish == "stop" else finish


class ChunkEncoder:
    """Encodes the events of one streamed answer as chunks.

    Args:
        id_: id of the completion.
        created: seconds since the epoch.
        model: the model that answers.
        with_usage: whether the caller asked for the usage: every chunk has the field then.
    """

    def __init__(self, id_: str, created: int, model: str, *, with_usage: bool) -> None:
        self._with_usage = with_usage
        self._envelope: dict[str, object] = {
            "id": id_,
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
            "system_fingerprint": None,
        }
        self._calls: dict[int, int] = {}
        """Index among the tool calls by index among the parts."""
        self._without_arguments: set[int] = set()
        # The chunk of a piece of text, around the piece: one is sent for each token.
        before, _, after = self._chunk({"content": "\x00"}).partition(b'"\\u0000"')
        self._before_text, self._after_text = before, after

    def opening(self) -> bytes:
        """Returns the first chunk."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def event(self, event: ModelResponseStreamEvent) -> bytes:
        """Returns the chunks of an event; empty for thinking and for the ends of parts."""
        match event:
            case (
                PartDeltaEvent(delta=TextPartDelta(content_delta=text)) | PartStartEvent(part=TextPart(content=text))
            ) if text:
                return self._before_text + _dumps(text) + self._after_text
            case PartStartEvent(index=index, part=ToolCallPart() as call):
                return self._call(index, call)
            case PartDeltaEvent(index=index, delta=ToolCallPartDelta(args_delta=arguments)) if index in self._calls:
                return self._call_arguments(index, _arguments(arguments))
            case _:
                return b""

    def end(self, reason: str | None) -> bytes:
        """Returns the chunk with the finish reason, after the arguments of calls that have none."""
        empty = [self._call_arguments(index, "{}") for index in sorted(self._without_arguments)]
        finish = _finish_reason(reason, has_calls=bool(self._calls))
        return b"".join([*empty, self._chunk({}, finish)])

    def usage(self, usage: RequestUsage) -> bytes:
        """Returns the chunk with the usage; empty where the caller has not asked for it."""
        if not self._with_usage:
            return b""
        return encode_event({**self._envelope, "choices": [], "usage": usage_of(usage)})

    def _call(self, index: int, call: ToolCallPart) -> bytes:
        number = self._calls.setdefault(index, len(self._calls))
        arguments = _arguments(call.args)
        if not arguments:
            self._without_arguments.add(index)
        function = {"name": call.tool_name, "arguments": arguments}
        delta = {"index": number, "id": call.tool_call_id, "type": "function", "function": function}
        return self._chunk({"tool_calls": [delta]})

    def _call_arguments(self, index: int, arguments: str) -> bytes:
        if not arguments:
            return b""
        self._without_arguments.discard(index)
        delta = {"index": self._calls[index], "function": {"arguments": arguments}}
        return self._chunk({"tool_calls": [delta]})

    def _chunk(self, delta: Mapping[str, object], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if self._with_usage else {}
        return encode_event({**self._envelope, "choices": [choice], **usage})
