"""Deviations of local servers from OpenAI's wire format: vLLM, LM Studio, llama.cpp, LiteLLM's proxy.

Each sends its bytes as they were seen on the wire of that server, so the ordinary behaviours are not used here.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.fake_llm.server import Act, Behaviour, Exchange
from tests.support.fake_llm.wire import INPUT_TOKENS, OUTPUT_TOKENS

_USAGE = {
    "prompt_tokens": INPUT_TOKENS,
    "completion_tokens": OUTPUT_TOKENS,
    "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
}
_TIMINGS = {
    "prompt_n": INPUT_TOKENS, "prompt_ms": 40.2, "prompt_per_token_ms": 3.6, "prompt_per_second": 273.6,
    "predicted_n": OUTPUT_TOKENS, "predicted_ms": 300.1, "predicted_per_token_ms": 42.9, "predicted_per_second": 23.3,
}  # fmt: skip


def vllm(text: str = "Four", thinking: str = "Two and two") -> Behaviour:
    """`reasoning_content`, null fields all over, usage in a chunk of its own and as null in every other."""
    pieces = [
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"reasoning_content": thinking}},
        *({"delta": {"content": piece}} for piece in _halves(text)),
        {"delta": {"content": ""}, "finish_reason": "stop", "stop_reason": None},
    ]
    chunks = [_chunk([{"index": 0, "logprobs": None, "finish_reason": None, **piece}], usage=None) for piece in pieces]
    message = {"role": "assistant", "content": text, "reasoning_content": thinking, "tool_calls": [], "refusal": None}
    extra = {"prompt_logprobs": None, "kv_transfer_params": None}
    return _server(
        [*chunks, _chunk([], usage=_USAGE)], message, usage={**_USAGE, "prompt_tokens_details": None}, **extra
    )


def lm_studio(text: str = "Four") -> Behaviour:
    """An empty first delta, no usage in streams, `stats` in plain answers, and an end without a role or content."""
    pieces = [{"delta": {}}, *({"delta": {"role": "assistant", "content": piece}} for piece in _halves(text))]
    chunks = [_chunk([{"index": 0, "logprobs": None, "finish_reason": None, **piece}]) for piece in pieces]
    chunks.append(_chunk([{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]))
    message = {"role": "assistant", "content": text, "tool_calls": []}
    return _server(chunks, message, usage=_USAGE, stats={"tokens_per_second": 30.5}, system_fingerprint="gemma-3-4b")


def llama_cpp(text: str = "Four") -> Behaviour:
    """`timings` in place of usage, a first delta whose content is null, and the finish reason in a chunk with them."""
    pieces = [
        {"delta": {"role": "assistant", "content": None}},
        *({"delta": {"content": piece}} for piece in _halves(text)),
    ]
    chunks = [_chunk([{"index": 0, "finish_reason": None, **piece}]) for piece in pieces]
    chunks.append(_chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}], timings=_TIMINGS))
    return _server(chunks, {"role": "assistant", "content": text}, timings=_TIMINGS, system_fingerprint="b6497-abc")


def litellm_proxy(text: str = "Four") -> Behaviour:
    """Deltas whose fields come and go, `citations` and `provider_specific_fields`, a finish without content."""
    pieces = [
        {"delta": {"role": "assistant", "content": piece, "provider_specific_fields": None}} for piece in _halves(text)
    ]
    chunks = [_chunk([{"index": 0, **piece}], citations=None) for piece in pieces]
    chunks += [
        _chunk([{"finish_reason": "stop", "index": 0, "delta": {}}]),
        _chunk([{"index": 0, "delta": {}}], usage=_USAGE),
    ]
    message = {"role": "assistant", "content": text, "tool_calls": None, "function_call": None, "annotations": []}
    return _server(chunks, message, usage=_USAGE, service_tier=None)


def litellm_error_in_stream(after: str = "Two and") -> Behaviour:
    """The proxy's upstream fails in mid-stream: an `error` object whose code is a text."""

    async def do(exchange: Exchange) -> None:
        error = {
            "message": "litellm.InternalServerError: upstream fell over",
            "type": None,
            "param": None,
            "code": "500",
        }
        await exchange.start_stream()
        await exchange.chunk(_event(_chunk([{"index": 0, "delta": {"role": "assistant", "content": after}}])))
        await exchange.chunk(_event({"error": error}))
        await exchange.end()

    return Act(do)


ERRORS: dict[str, tuple[int, Mapping[str, Any]]] = {
    # the fault, and its response from that server
    "vLLM: too long": (
        400,
        {
            "error": {
                "message": "You passed 1015 input tokens and requested 10 output tokens. However, the model's context "
                "length is only 1024 tokens, resulting in a maximum input length of 1014 tokens. Please reduce the "
                "length of the input prompt. (parameter=input_tokens, value=1015)",
                "type": "BadRequestError",
                "param": "input_tokens",
                "code": 400,
            }
        },
    ),
    "vLLM before 0.16: too long": (
        400,
        {
            "object": "error",
            "message": "This model's maximum context length is 1024 tokens. However, you requested 1029 tokens.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
    ),
    "vLLM: no such model": (
        404,
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}},
    ),
    "LM Studio: too long": (
        400,
        {
            "error": "Trying to keep the first 5123 tokens when context the overflows. However, the model is loaded "
            "with context length of only 4096 tokens, which is not enough."
        },
    ),
    "llama.cpp: too long": (
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 14429,
                "n_ctx": 8192,
            }
        },
    ),
    "llama.cpp: still loading": (
        503,
        {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
    ),
    "LiteLLM: too long": (
        400,
        {
            "error": {
                "message": "litellm.BadRequestError: litellm.ContextWindowExceededError: AnthropicError - too long",
                "type": None,
                "param": None,
                "code": "400",
            }
        },
    ),
    "LiteLLM: refused": (
        400,
        {
            "error": {
                "message": "litellm.BadRequestError: litellm.ContentPolicyViolationError: AzureException - filtered",
                "type": None,
                "param": None,
                "code": "400",
            }
        },
    ),
    "LiteLLM: budget used up": (
        429,
        {
            "error": {
                "message": "Budget has been exceeded! Current cost: 26.075, Max budget: 0.25",
                "type": "budget_exceeded",
                "param": None,
                "code": "429",
            }
        },
    ),
}


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _chunk(choices: list[dict[str, Any]], **extra: object) -> dict[str, Any]:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_800_000_000, "model": "m"}
    return {**head, "choices": choices, **extra}


def _event(data: Mapping[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _server(chunks: Iterable[Mapping[str, Any]], message: Mapping[str, Any], **extra: object) -> Behaviour:
    """Answer with those chunks, or with that message."""

    async def do(exchange: Exchange) -> None:
        if exchange.request.streamed:
            await exchange.start_stream()
            for chunk in chunks:
                await exchange.chunk(_event(chunk))
            await exchange.chunk(b"data: [DONE]\n\n")
            await exchange.end()
            return
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_800_000_000, "model": "m"}
        await exchange.body({**head, "choices": [choice], **extra})

    return Act(do)
