"""Encodes answers in the wire format of Google's Gemini API."""

import json
from typing import Any

from tests.support.fake_llm.wire import INPUT_TOKENS, OUTPUT_TOKENS, WireError

FINISH_REASONS = {
    "stop": "STOP",
    "tool_calls": "STOP",  # a call of a tool is no reason of its own
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
    "refused": "SAFETY",
}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""Google's names (google.rpc.Code) for HTTP statuses."""
WORDS = {
    400: "Invalid value at 'contents[0].parts[0]'.",
    403: "Permission denied on resource project 1.",
    404: "models/gemini-nothing is not found for API version v1beta, or is not supported for generateContent.",
    429: "You exceeded your current quota, please check your plan and billing details.",
    500: "An internal error has occurred.",
    503: "The service is currently unavailable.",
}


def quota_failure(quota_id: str) -> dict[str, Any]:
    """Which quota a request ran into."""
    violation = {"quotaMetric": "generativelanguage.googleapis.com/requests", "quotaId": quota_id, "quotaValue": "50"}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


def retry_info(delay: str) -> dict[str, Any]:
    """Pause that Google asks for: in the body, not in a header."""
    return {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}


class GeminiWire:
    """`:generateContent` and `:streamGenerateContent?alt=sse`; errors are google.rpc.Status."""

    def __init__(self, model: str) -> None:
        self._model = model

    def _event(self, data: dict[str, Any]) -> bytes:
        return b"data: " + json.dumps(data).encode() + b"\r\n\r\n"

    def _body(
        self, parts: list[dict[str, Any]] | None, finish: str | None = None, *, usage: bool = False
    ) -> dict[str, Any]:
        candidate: dict[str, Any] = {"index": 0}
        if parts is not None:
            candidate["content"] = {"parts": parts, "role": "model"}
        if finish is not None:
            candidate["finishReason"] = FINISH_REASONS.get(finish, finish)
        return {"candidates": [candidate], **self._envelope(usage=usage)}

    def _envelope(self, *, usage: bool = False) -> dict[str, Any]:
        envelope: dict[str, Any] = {"modelVersion": self._model, "responseId": "resp_1"}
        if usage:
            envelope["usageMetadata"] = {
                "promptTokenCount": INPUT_TOKENS,
                "candidatesTokenCount": OUTPUT_TOKENS,
                "totalTokenCount": INPUT_TOKENS + OUTPUT_TOKENS,
            }
        return envelope

    def opening(self) -> bytes:
        return b""

    def text(self, piece: str) -> bytes:
        return self._event(self._body([{"text": piece}]))

    def thinking(self, piece: str) -> bytes:
        return self._event(self._body([{"text": piece, "thought": True}]))

    def tool_call(self, name: str, arguments: str) -> bytes:
        return self._event(self._body([self._call(name, arguments)]))

    def _call(self, name: str, arguments: str) -> dict[str, Any]:
        return {"functionCall": {"name": name, "args": json.loads(arguments)}, "thoughtSignature": "c2ln"}

    def refusal(self, text: str) -> bytes:
        return b""

    def finish(self, reason: str, *, usage: bool) -> bytes:
        said = None if reason in {"refused", "content_filter"} else [{"text": ""}]
        return self._event(self._body(said, reason, usage=usage))

    def done(self) -> bytes:
        return b""

    def garbage(self) -> bytes:
        return b'data: {"candidates": [{"cont\r\n\r\n'

    def stream_error(self, fault: WireError) -> bytes:
        return self._event(self.error_body(fault))

    def error_body(self, fault: WireError) -> dict[str, Any]:
        status = fault.type or "INTERNAL"
        code = fault.code or next((code for code, name in STATUSES.items() if name == status), 500)
        error: dict[str, Any] = {"code": code, "message": fault.message, "status": status}
        if fault.details:
            error["details"] = list(fault.details)
        return {"error": error}

    def fault(self, status: int) -> WireError:
        return WireError(WORDS.get(status, f"Error {status}."), STATUSES.get(status, "UNKNOWN"), status)

    def overloaded(self) -> WireError:
        return WireError("The model is overloaded. Please try again later.", "UNAVAILABLE", 503)

    def key_refused(self) -> tuple[int, WireError]:
        reason = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
        }
        words = "API key not valid. Please pass a valid API key."
        return 400, WireError(words, "INVALID_ARGUMENT", 400, (reason,))

    def quota_exceeded(self) -> tuple[int, WireError]:
        details = (quota_failure("GenerateRequestsPerDayPerProjectPerModel-FreeTier"), retry_info("31s"))
        return 429, WireError(WORDS[429], "RESOURCE_EXHAUSTED", 429, details)

    def context_exceeded(self) -> tuple[int, WireError]:
        words = "The input token count (2800010) exceeds the maximum number of tokens allowed (1048576)."
        return 400, WireError(words, "INVALID_ARGUMENT", 400)

    def model_unknown(self) -> tuple[int, WireError]:
        return 404, self.fault(404)

    def prompt_refused(self) -> tuple[int, dict[str, Any]]:
        return 200, {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, **self._envelope(usage=True)}

    def empty(self) -> dict[str, Any]:
        return self._body([{"text": ""}], "stop", usage=True)

    def no_choices(self) -> dict[str, Any]:
        return self._envelope(usage=True)

    def no_choices_in_stream(self) -> bytes:
        return self._event(self.no_choices())

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
        parts: list[dict[str, Any]] = []
        if thinking is not None:
            parts.append({"text": thinking, "thought": True})
        if text is not None:
            parts.append({"text": text})
        if tool is not None:
            parts.append(self._call(*tool))
        blocked = refusal is not None or (finish == "content_filter" and not parts)
        return self._body(None if blocked else parts, finish, usage=usage)
