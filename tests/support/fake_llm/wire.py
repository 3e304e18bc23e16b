"""Encodes chat answers in the wire formats of OpenAI and Anthropic, without sockets.

Google's and Mistral's are in `llm_wire_gemini` and `llm_wire_mistral`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Protocol

INPUT_TOKENS = 11
OUTPUT_TOKENS = 7


@dataclass(frozen=True, slots=True)
class WireError:
    """An error as a provider words it; `None` where that provider sends nothing."""

    message: str
    type: str | None = None
    code: str | int | None = None
    details: tuple[dict[str, Any], ...] = ()
    """Google's."""


class Wire(Protocol):
    """One answer in one wire format; an object serves one request, since streams have state."""

    def opening(self) -> bytes: ...
    def text(self, piece: str) -> bytes: ...
    def thinking(self, piece: str) -> bytes: ...
    def tool_call(self, name: str, arguments: str) -> bytes: ...
    def refusal(self, text: str) -> bytes: ...
    def finish(self, reason: str, *, usage: bool) -> bytes: ...
    def done(self) -> bytes: ...
    def garbage(self) -> bytes: ...
    def stream_error(self, fault: WireError) -> bytes: ...
    def error_body(self, fault: WireError) -> dict[str, Any]: ...
    def fault(self, status: int) -> WireError:
        """Words of that provider for an error of that status, by default."""
        ...

    def overloaded(self) -> WireError:
        """The error that ends a broken stream."""
        ...

    def key_refused(self) -> tuple[int, WireError]: ...
    def quota_exceeded(self) -> tuple[int, WireError]: ...
    def context_exceeded(self) -> tuple[int, WireError]: ...
    def model_unknown(self) -> tuple[int, WireError]: ...
    def prompt_refused(self) -> tuple[int, dict[str, Any]]: ...
    def empty(self) -> dict[str, Any]: ...
    def no_choices(self) -> dict[str, Any]: ...
    def no_choices_in_stream(self) -> bytes: ...
    def plain(
        self,
        text: str | None,
        *,
        finish: str | None = "stop",
        usage: bool = True,
        thinking: str | None = None,
        tool: tuple[str, str] | None = None,
        refusal: str | None = None,
    ) -> dict[str, Any]: ...


class Dialect(Enum):
    """Servers with the OpenAI wire format, where they differ."""

    PLAIN = auto()
    """OpenAI, Azure, Ollama and most local servers."""
    OPENROUTER = auto()
    GROQ = auto()
    DEEPSEEK = auto()


class OpenAIWire:
    """Chat completions, in each dialect."""

    def __init__(self, model: str, *, include_usage: bool = True, dialect: Dialect = Dialect.PLAIN) -> None:
        self._model = model
        self._include_usage = include_usage
        self._dialect = dialect

    def _event(self, data: Mapping[str, Any]) -> bytes:
        return b"data: " + json.dumps(data).encode() + b"\n\n"

    def _chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish, **self._native(finish)}
        return self._event({**self._envelope("chat.completion.chunk"), "choices": [choice]})

    def _envelope(self, kind: str) -> dict[str, Any]:
        envelope = {"id": "chatcmpl-1", "object": kind, "created": 1_800_000_000, "model": self._model}
        return {**envelope, "provider": "Loopback"} if self._dialect is Dialect.OPENROUTER else envelope

    def _native(self, finish: str | None) -> dict[str, Any]:
        return {"native_finish_reason": finish} if self._dialect is Dialect.OPENROUTER else {}

    def _usage(self) -> dict[str, Any]:
        return {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }

    def opening(self) -> bytes:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, piece: str) -> bytes:
        return self._chunk({"content": piece})

    def thinking(self, piece: str) -> bytes:
        return self._chunk(self._thought(piece))

    def _thought(self, text: str) -> dict[str, Any]:
        # `reasoning` is Ollama's, OpenRouter's and Groq's field, `reasoning_content` DeepSeek's and vLLM's.
        match self._dialect:
            case Dialect.DEEPSEEK:
                return {"reasoning_content": text}
            case Dialect.GROQ:
                return {"reasoning": text}
            case _:
                return {"reasoning": text, "reasoning_content": text}

    def tool_call(self, name: str, arguments: str) -> bytes:
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
        middle = len(arguments) // 2
        pieces = [{"index": 0, "function": {"arguments": part}} for part in (arguments[:middle], arguments[middle:])]
        return b"".join(self._chunk({"tool_calls": [piece]}) for piece in (call, *pieces))

    def refusal(self, text: str) -> bytes:
        return self._chunk({"refusal": text})

    def finish(self, reason: str, *, usage: bool) -> bytes:
        reason = "stop" if reason == "refused" else reason
        if usage and self._dialect is Dialect.GROQ:
            choice = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": reason}
            end = {**self._envelope("chat.completion.chunk"), "choices": [choice]}
            return self._event({**end, "x_groq": {"id": "req_1", "usage": self._usage()}})
        last = self._chunk({}, reason)
        if usage and self._include_usage:
            last += self._event({**self._envelope("chat.completion.chunk"), "choices": [], "usage": self._usage()})
        return last

    def done(self) -> bytes:
        return b"data: [DONE]\n\n"

    def garbage(self) -> bytes:
        return b'data: {"id": "chatcmpl-1", "choi\n\n'

    def stream_error(self, fault: WireError) -> bytes:
        return self._event(self.error_body(fault)) + self.done()

    def error_body(self, fault: WireError) -> dict[str, Any]:
        return {"error": {"message": fault.message, "type": fault.type, "param": None, "code": fault.code}}

    def fault(self, status: int) -> WireError:
        table = DEEPSEEK_FAULTS if self._dialect is Dialect.DEEPSEEK else OPENAI_FAULTS
        return table.get(status) or OPENAI_FAULTS.get(status, WireError(f"Error {status}.", "server_error"))

    def overloaded(self) -> WireError:
        return WireError("upstream fell over", "server_error")

    def key_refused(self) -> tuple[int, WireError]:
        return 401, self.fault(401)

    def quota_exceeded(self) -> tuple[int, WireError]:
        if self._dialect is Dialect.DEEPSEEK:
            return 402, self.fault(402)
        return 429, WireError("You exceeded your current quota.", "insufficient_quota", "insufficient_quota")

    def context_exceeded(self) -> tuple[int, WireError]:
        words = "This model's maximum context length is 8192 tokens. Please reduce the length of the messages."
        code = "invalid_request_error" if self._dialect is Dialect.DEEPSEEK else "context_length_exceeded"
        return 400, WireError(words, "invalid_request_error", code)

    def model_unknown(self) -> tuple[int, WireError]:
        if self._dialect is Dialect.DEEPSEEK:
            return 400, WireError("Model Not Exist", "invalid_request_error", "invalid_request_error")
        return 404, self.fault(404)

    def prompt_refused(self) -> tuple[int, dict[str, Any]]:
        if self._dialect is Dialect.DEEPSEEK:
            return 400, self.error_body(
                WireError("Content Exists Risk", "invalid_request_error", "invalid_request_error")
            )
        message = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
        error = {"message": message, "type": None, "param": "prompt", "code": "content_filter", "status": 400}
        filters = {"violence": {"filtered": True, "severity": "medium"}}
        error["innererror"] = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": filters}
        return 400, {"error": error}

    def empty(self) -> dict[str, Any]:
        return self.plain("")

    def no_choices(self) -> dict[str, Any]:
        return {**self._envelope("chat.completion"), "choices": [], "usage": self._usage()}

    def no_choices_in_stream(self) -> bytes:
        return self._event({**self._envelope("chat.completion.chunk"), "choices": []}) + self.done()

    def plain(
        self,
        text: str | None,
        *,
        finish: str | None = "stop",
        usage: bool = True,
        thinking: str | None = None,
        tool: tuple[str, str] | None = None,
        refusal: str | None = None,
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        if refusal is not None:
            message["refusal"] = refusal
        if thinking is not None:
            message |= self._thought(thinking)
        if tool is not None:
            function = {"name": tool[0], "arguments": tool[1]}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        body = {**self._envelope("chat.completion"), "choices": [{"index": 0, "message": message}]}
        finish = "stop" if finish == "refused" else finish
        body["choices"][0] |= {"logprobs": None, "finish_reason": finish, **self._native(finish)}
        if usage:
            body["usage"] = self._usage()
        return body


STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "refused": "refusal",
}


class AnthropicWire:
    """The messages API of Anthropic, with its typed server-sent events."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._index = -1
        self._open: str | None = None

    def _event(self, kind: str, **data: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()

    def _message(self, content: list[dict[str, Any]], stop_reason: str | None, output_tokens: int) -> dict[str, Any]:
        return {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": output_tokens},
        }

    def _block(self, kind: str, block: dict[str, Any]) -> bytes:
        """Open a content block of that kind, unless it is the open one already."""
        if self._open == kind:
            return b""
        closing = self._close_block()
        self._index += 1
        self._open = kind
        return closing + self._event("content_block_start", index=self._index, content_block=block)

    def _close_block(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return self._event("content_block_stop", index=self._index)

    def _delta(self, **delta: object) -> bytes:
        return self._event("content_block_delta", index=self._index, delta=delta)

    def opening(self) -> bytes:
        return self._event("message_start", message=self._message([], None, 1)) + self._event("ping")

    def text(self, piece: str) -> bytes:
        return self._block("text", {"type": "text", "text": ""}) + self._delta(type="text_delta", text=piece)

    def thinking(self, piece: str) -> bytes:
        block = self._block("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        return block + self._delta(type="thinking_delta", thinking=piece)

    def tool_call(self, name: str, arguments: str) -> bytes:
        block = self._block(f"tool:{name}", {"type": "tool_use", "id": "toolu_1", "name": name, "input": {}})
        middle = len(arguments) // 2
        parts = (arguments[:middle], arguments[middle:])
        return block + b"".join(self._delta(type="input_json_delta", partial_json=part) for part in parts)

    def refusal(self, text: str) -> bytes:
        return self.text(text)

    def finish(self, reason: str, *, usage: bool) -> bytes:
        tokens = {"output_tokens": OUTPUT_TOKENS if usage else 0}
        delta = {"stop_reason": STOP_REASONS.get(reason, reason), "stop_sequence": None}
        return self._close_block() + self._event("message_delta", delta=delta, usage=tokens)

    def done(self) -> bytes:
        return self._event("message_stop")

    def garbage(self) -> bytes:
        return b'event: content_block_delta\ndata: {"type": "content_block_del\n\n'

    def stream_error(self, fault: WireError) -> bytes:
        return self._event("error", error={"type": fault.type or "api_error", "message": fault.message})

    def error_body(self, fault: WireError) -> dict[str, Any]:
        return {
            "type": "error",
            "error": {"type": fault.type or "api_error", "message": fault.message},
            "request_id": "req_1",
        }

    def fault(self, status: int) -> WireError:
        return ANTHROPIC_FAULTS.get(status, WireError(f"Error {status}.", "api_error"))

    def overloaded(self) -> WireError:
        return self.fault(529)

    def key_refused(self) -> tuple[int, WireError]:
        return 401, self.fault(401)

    def quota_exceeded(self) -> tuple[int, WireError]:
        return 400, WireError("Your credit balance is too low to access the Anthropic API.", "invalid_request_error")

    def context_exceeded(self) -> tuple[int, WireError]:
        return 400, WireError("prompt is too long: 212345 tokens > 200000 maximum", "invalid_request_error")

    def model_unknown(self) -> tuple[int, WireError]:
        return 404, self.fault(404)

    def prompt_refused(self) -> tuple[int, dict[str, Any]]:
        return 200, self.plain(None, finish="refused")

    def empty(self) -> dict[str, Any]:
        return self.plain(None)

    def no_choices(self) -> dict[str, Any]:
        return self._message([], "end_turn", 0)

    def no_choices_in_stream(self) -> bytes:
        return self.opening() + self.finish("stop", usage=True) + self.done()

    def plain(
        self,
        text: str | None,
        *,
        finish: str | None = "stop",
        usage: bool = True,
        thinking: str | None = None,
        tool: tuple[str, str] | None = None,
        refusal: str | None = None,
    ) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        if thinking is not None:
            content.append({"type": "thinking", "thinking": thinking, "signature": "sig"})
        if refusal is not None:
            text = refusal
        if text is not None:
            content.append({"type": "text", "text": text})
        if tool is not None:
            content.append({"type": "tool_use", "id": "toolu_1", "name": tool[0], "input": json.loads(tool[1])})
        stop_reason = None if finish is None else STOP_REASONS.get(finish, finish)
        return self._message(content, stop_reason, OUTPUT_TOKENS if usage else 0)


OPENAI_FAULTS: dict[int, WireError] = {
    400: WireError("Invalid value for 'messages'.", "invalid_request_error", "invalid_value"),
    401: WireError("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    402: WireError("Insufficient credits.", None, 402),
    403: WireError("Country, region, or territory not supported.", "request_forbidden", "unsupported_country"),
    404: WireError(
        "The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"
    ),
    408: WireError("The request took too long.", "timeout", None),
    422: WireError("Unprocessable entity.", "invalid_request_error", None),
    429: WireError("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: WireError("The server had an error while processing your request.", "server_error", None),
    502: WireError("Bad gateway.", "server_error", None),
    503: WireError("The service is temporarily unavailable.", "server_error", None),
    504: WireError("Gateway timeout.", "server_error", None),
    529: WireError("The engine is currently overloaded, please try again later.", "server_error", "overloaded"),
}
ANTHROPIC_FAULTS: dict[int, WireError] = {
    400: WireError("messages: at least one message is required", "invalid_request_error"),
    401: WireError("invalid x-api-key", "authentication_error"),
    402: WireError("Your credit balance is too low to access the API.", "billing_error"),
    403: WireError("Your API key does not have permission to use this resource.", "permission_error"),
    404: WireError("model: claude-nothing", "not_found_error"),
    408: WireError("The request took too long.", "timeout_error"),
    422: WireError("Unprocessable entity.", "invalid_request_error"),
    429: WireError("Number of requests has exceeded your rate limit.", "rate_limit_error"),
    500: WireError("Internal server error", "api_error"),
    504: WireError("Request timed out.", "timeout_error"),
    529: WireError("Overloaded", "overloaded_error"),
}
DEEPSEEK_FAULTS: dict[int, WireError] = {
    400: WireError("Invalid value for `messages`.", "invalid_request_error", "invalid_request_error"),
    401: WireError("Authentication Fails (no such user)", "authentication_error", "invalid_request_error"),
    402: WireError("Insufficient Balance", "unknown_error", "invalid_request_error"),
    503: WireError("Service is too busy.", "service_unavailable_error", "service_unavailable_error"),
}
