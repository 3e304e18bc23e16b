"""Encodes answers in Mistral's wire format, as far as it differs from OpenAI's."""

from typing import Any

from tests.support.fake_llm.wire import OpenAIWire, WireError

MISTRAL_FAULTS: dict[int, WireError] = {
    400: WireError(
        "Expected last role User or Tool for serving but got assistant", "invalid_request_message_order", "3230"
    ),
    401: WireError("Unauthorized", "unauthorized", None),
    404: WireError("no Route matched with those values", None, None),
    429: WireError("Rate limit exceeded", "rate_limited", "1300"),
    500: WireError("Service unavailable.", "internal_server_error", "3700"),
    503: WireError("Service tier capacity exceeded for this model.", "service_tier_capacity_exceeded", "3505"),
}


class MistralWire(OpenAIWire):
    """Thinking is a part of the content, tool calls come whole, usage comes with the end, errors are flat."""

    def __init__(self, model: str) -> None:
        super().__init__(model)
        self._calls: list[dict[str, Any]] = []

    def thinking(self, piece: str) -> bytes:
        return self._chunk({"content": [self._thought(piece)]})

    def _thought(self, text: str) -> dict[str, Any]:
        return {"type": "thinking", "thinking": [{"type": "text", "text": text}]}

    def tool_call(self, name: str, arguments: str) -> bytes:
        self._calls.append({"id": "D681PevKs", "index": 0, "function": {"name": name, "arguments": arguments}})
        return b""

    def finish(self, reason: str, *, usage: bool) -> bytes:
        delta: dict[str, Any] = {"content": ""}
        if self._calls:
            delta["tool_calls"] = self._calls
        choice = {"index": 0, "delta": delta, "finish_reason": "stop" if reason == "refused" else reason}
        end: dict[str, Any] = {**self._envelope("chat.completion.chunk"), "choices": [choice]}
        return self._event({**end, "usage": self._usage()} if usage else end)

    def garbage(self) -> bytes:
        return b'data: {"id": "cmpl-1", "choi\n\n'

    def stream_error(self, fault: WireError) -> bytes:
        return self._event(self.error_body(fault)) + self.done()

    def error_body(self, fault: WireError) -> dict[str, Any]:
        return {"object": "error", "message": fault.message, "type": fault.type, "param": None, "code": fault.code}

    def fault(self, status: int) -> WireError:
        return MISTRAL_FAULTS.get(status, WireError(f"Error {status}."))

    def quota_exceeded(self) -> tuple[int, WireError]:
        return 402, self.fault(402)

    def context_exceeded(self) -> tuple[int, WireError]:
        words = (
            "Prompt contains 139232 tokens and 0 draft tokens, too large for model with 131072 maximum context length"
        )
        return 400, WireError(words, "invalid_request_invalid_args", "3051")

    def model_unknown(self) -> tuple[int, WireError]:
        return 400, WireError("Invalid model: mistral-nothing", "invalid_model", "1500")

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
        body = super().plain(text, finish=finish, usage=usage, tool=tool, refusal=refusal)
        message = body["choices"][0]["message"]
        if thinking is not None:
            message["content"] = [self._thought(thinking), *([{"type": "text", "text": text}] if text else [])]
        for call in message.get("tool_calls", ()):
            call["id"] = "D681PevKs"
        return body
