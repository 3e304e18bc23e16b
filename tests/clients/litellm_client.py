"""LiteLLM's client against the endpoint at OPENAI_BASE_URL; prints what it saw as JSON. Runs in LiteLLM's own venv."""

import json
import os
from typing import Any

import litellm

MESSAGES = [{"role": "user", "content": "Hello?"}]
ZONE = {"type": "object", "properties": {"zone": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "current_time", "parameters": ZONE}}


def complete(**fields: Any) -> Any:
    """Ask for a completion."""
    given = {"model": "openai/auto", "messages": MESSAGES, "api_key": os.environ["OPENAI_API_KEY"], **fields}
    return litellm.completion(api_base=os.environ["OPENAI_BASE_URL"], max_retries=0, **given)


def refusal(**fields: Any) -> list[int] | None:
    """Ask for a completion that is refused; returns the status."""
    try:
        complete(**fields)
    except Exception as error:  # noqa: BLE001 - its errors have no common base
        return [getattr(error, "status_code", 0)]
    return None


def main() -> None:
    """Print what the client saw."""
    plain = complete()
    choice = plain.choices[0]
    seen: dict[str, Any] = {"plain": [choice.message.content, choice.finish_reason, plain.usage.total_tokens]}
    text = "".join(chunk.choices[0].delta.content or "" for chunk in complete(stream=True))
    seen["streamed"] = text
    (call,) = complete(tools=[TOOL]).choices[0].message.tool_calls
    asked = {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}
    result = {"role": "tool", "tool_call_id": call.id, "content": "noon"}
    seen["tools"] = complete(messages=[*MESSAGES, asked, result], tools=[TOOL]).choices[0].message.content
    seen["unknown_model"] = refusal(model="openai/gpt-9")
    seen["wrong_token"] = refusal(api_key="wrong-token-0123456789")
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
