"""Draws pictures with failover over IMAGE_PROVIDERS, by an endpoint for images or a model that draws in chat."""

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, cast

import httpx2
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.usage import RequestUsage

from core.bounded_json import parse_json
from core.config.providers import ProviderKind
from services.llm.capabilities.asking import Picture, SizedRequest, ask_first
from services.llm.capabilities.wire import fetch_body, open_client, to_http_error
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.spec import ModelSpec
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.faults.reasons import EmptyAnswer
from services.llm.server_words import find_message
from services.llm.usage import text_tokens

PICTURE_TOKENS = 1000
"""Output tokens charged for a picture if the server reports none: `<ID>_PRICES` is then the price of 1,000 pictures."""
LONGEST_PICTURE = 6500
"""Output tokens reserved for a picture: those of OpenAI's best quality."""
MAX_DESCRIPTION = 4000
_OWN_FORMAT = ("gpt-image", "chatgpt-image")
"""OpenAI models that always return the bytes and reject `response_format`."""
_MAGIC: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp",
}  # fmt: skip
_DATA_URL = "data:image/"
_MAX_COUNTED = 10_000_000
_DEEPEST = 8
"""Maximum nesting searched for pictures; known answers have fewer levels."""


class ImageGenerator:
    """Draws pictures.

    Args:
        fallback: the providers of IMAGE_PROVIDERS, with a health of their own.
        builder: builds the clients of the providers.
    """

    def __init__(self, fallback: LLMProviderFallback, builder: ModelBuilder) -> None:
        self._fallback = fallback
        self._builder = builder
        self._plain: set[str] = set()
        """Providers that rejected `response_format`."""

    async def draw(self, description: str, spec: RequestSpec) -> Picture:
        """Draws a picture.

        Raises:
            ProviderError: no provider drew it, or another one could not help.
        """
        description = description[:MAX_DESCRIPTION]

        async def call(candidate: Candidate) -> tuple[tuple[bytes, str], RequestUsage]:
            return await self._ask(self._builder.spec(candidate.provider, candidate.model), description)

        sent: list[ModelMessage] = [ModelRequest([UserPromptPart(description)])]
        shape = SizedRequest(text_tokens(description), LONGEST_PICTURE)
        served = await ask_first(self._fallback, spec, sent, call, shape)
        data, media_type = served.value
        return Picture(data, media_type, served.candidate.provider.id, served.candidate.model)

    async def _ask(self, spec: ModelSpec, description: str) -> tuple[tuple[bytes, str], RequestUsage]:
        match spec.provider.kind:
            case ProviderKind.GOOGLE:
                body = await _draw_with_gemini(spec, description)
            case ProviderKind.OPENROUTER:
                body = await _draw_in_chat(spec, description)
            case _:
                body = await self._draw(spec, description)
        usage = RequestUsage(input_tokens=text_tokens(description), output_tokens=PICTURE_TOKENS)
        return read_picture(body, usage)

    async def _draw(self, spec: ModelSpec, description: str) -> bytes:
        """Asks the endpoint for images; for the bytes, since an address may lead anywhere."""
        images = open_client(spec).images.with_raw_response
        generate = cast("Callable[..., Awaitable[Any]]", images.generate)
        given: dict[str, Any] = {"prompt": description, "model": spec.wire_name, "n": 1}
        if spec.provider.id in self._plain or spec.wire_name.startswith(_OWN_FORMAT):
            return await fetch_body(generate(**given), spec.wire_name)
        try:
            return await fetch_body(generate(**given, response_format="b64_json"), spec.wire_name)
        except ModelHTTPError as error:
            if error.status_code not in {400, 422} or "response_format" not in find_message(error.body):
                raise
        self._plain.add(spec.provider.id)
        return await fetch_body(generate(**given), spec.wire_name)


async def _draw_in_chat(spec: ModelSpec, description: str) -> bytes:
    """Asks a model that answers in chat with a picture."""
    completions = open_client(spec).chat.completions.with_raw_response
    create = cast("Callable[..., Awaitable[Any]]", completions.create)
    messages = [{"role": "user", "content": description}]
    call = create(model=spec.wire_name, messages=messages, extra_body={"modalities": ["image", "text"]})
    return await fetch_body(call, spec.wire_name)


async def _draw_with_gemini(spec: ModelSpec, description: str) -> bytes:
    """Asks a model of Google's that draws."""
    key = spec.provider.api_key.get_secret_value() if spec.provider.api_key is not None else ""
    response = await spec.http.post(
        f"{spec.provider.base_url}/v1beta/models/{spec.wire_name}:generateContent",
        headers={"x-goog-api-key": key},
        json={
            "contents": [{"role": "user", "parts": [{"text": description}]}],
            "generationConfig": {"responseModalities": ["TEXT", "IMAGE"]},
        },
    )
    if response.status_code >= httpx2.codes.BAD_REQUEST:
        try:
            body: object = parse_json(response.content)
        except ValueError:
            body = response.text[:1000]
        raise to_http_error(spec.wire_name, response.status_code, body, dict(response.headers), _google_status(body))
    return response.content


def _google_status(body: object) -> str | None:
    """Returns the status of a Google API error, such as `RESOURCE_EXHAUSTED`."""
    match body:
        case {"error": {"status": str(code)}}:
            return code
        case _:
            return None


def read_picture(body: bytes, usage: RequestUsage) -> tuple[tuple[bytes, str], RequestUsage]:
    """Returns the first picture in an answer with its media type, and the tokens.

    Args:
        body: body of a successful response.
        usage: returned if the answer reports none.

    Raises:
        EmptyAnswer: there is no picture in it.
    """
    try:
        parsed: object = parse_json(body)
    except ValueError as error:
        raise EmptyAnswer("unreadable answer") from error
    for encoded in _find_encoded(parsed, 0):
        try:
            data = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        for magic, media_type in _MAGIC.items():
            if data.startswith(magic):
                return (data, media_type), _read_usage(parsed) or usage
    raise EmptyAnswer("an answer without a picture")


def _find_encoded(tree: object, depth: int) -> Iterator[str]:
    """Yields encoded pictures of an images endpoint, of data URLs in a chat answer, and of Gemini."""
    if depth > _DEEPEST:
        return
    if isinstance(tree, list):
        for each in cast("list[object]", tree):
            yield from _find_encoded(each, depth + 1)
    elif isinstance(tree, dict):
        for name, value in cast("dict[str, object]", tree).items():
            if isinstance(value, str):
                if name in {"b64_json", "data"}:
                    yield value.rpartition("base64,")[2]
                elif value.startswith(_DATA_URL):
                    yield value.partition("base64,")[2]
            else:
                yield from _find_encoded(value, depth + 1)


def _read_usage(parsed: object) -> RequestUsage | None:
    fields = cast("dict[str, object]", parsed) if isinstance(parsed, dict) else {}
    found = fields.get("usage") or fields.get("usageMetadata")
    if not isinstance(found, dict):
        return None
    usage = cast("dict[str, object]", found)
    read, written = (
        next((number for name in names if isinstance(number := usage.get(name), int) and 0 < number < _MAX_COUNTED), 0)
        for names in (
            ("input_tokens", "prompt_tokens", "promptTokenCount"),
            ("output_tokens", "completion_tokens", "candidatesTokenCount"),
        )
    )
    return RequestUsage(input_tokens=read, output_tokens=written) if written else None
