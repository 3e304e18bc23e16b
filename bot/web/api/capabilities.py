"""Embeddings and transcriptions in OpenAI's format."""

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Literal

from aiohttp import web
from aiohttp.multipart import content_disposition_filename, parse_content_disposition
from pydantic import Field, TypeAdapter

from bot.web.api.errors import invalid, model_not_found
from bot.web.api.gateway import ApiCall, ApiGateway
from bot.web.api.models import AUTO, ModelDirectory
from bot.web.server import HttpRoute
from core.errors import UnknownProvider
from services.llm.capabilities.embeddings import Embeddings
from services.llm.capabilities.transcription import Recording, Transcriber
from services.llm.openai_messages import WirePart, validate
from services.llm.request import Capability

MAX_INPUTS = 2048
LONG_RECORDING_S = 120.0
"""Longer than most voice messages: a deadline that such a recording misses proves nothing about those."""
_TEXT_FIELDS = frozenset({"model", "language", "prompt", "temperature", "response_format", "stream"})


class _EmbeddingBody(WirePart):
    model: str
    input: (
        Annotated[str, Field(min_length=1)]
        | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=MAX_INPUTS)]
    )
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=65_536)] | None = None


_EMBEDDING_BODY = TypeAdapter(_EmbeddingBody)


class EmbeddingsApi:
    """Serves `/v1/embeddings`."""

    def __init__(self, directory: ModelDirectory, embeddings: Embeddings, gateway: ApiGateway) -> None:
        self._directory = directory
        self._embeddings = embeddings
        self._gateway = gateway

    @property
    def route(self) -> HttpRoute:
        """The route."""
        return self._gateway.route("POST", "/v1/embeddings", self._serve)

    async def _serve(self, _request: web.Request, call: ApiCall) -> web.Response:
        body = call.body
        _refuse_tokens(body.get("input"))
        parsed = validate(_EMBEDDING_BODY, body)
        call.facts["asked"] = parsed.model
        spec = await self._directory.spec(call.token, AUTO)
        if parsed.dimensions is not None:
            spec = replace(spec, unusual=frozenset({Capability.SETTINGS}))
        texts = [parsed.input] if isinstance(parsed.input, str) else parsed.input
        try:
            found = await self._embeddings.embed(texts, spec, parsed.model, parsed.dimensions)
        except UnknownProvider:
            raise model_not_found(parsed.model) from None
        call.facts |= {"answered": f"{found.provider}/{found.model}", "input_tokens": found.input_tokens}
        encode = _as_base64 if parsed.encoding_format == "base64" else _as_numbers
        data = [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(found.vectors)
        ]
        usage = {"prompt_tokens": found.input_tokens, "total_tokens": found.input_tokens}
        return web.json_response({"object": "list", "data": data, "model": found.model, "usage": usage})


def _refuse_tokens(texts: object) -> None:
    # Some clients send the numbers of their tokenizer; only the owner of the same one could read them.
    if isinstance(texts, list) and texts and isinstance(texts[0], int | list):
        raise invalid("input: send text; tokens can only be read by the tokenizer that made them", "input")


def _as_numbers(vector: Sequence[float]) -> str | list[float]:
    return list(vector)


def _as_base64(vector: Sequence[float]) -> str | list[float]:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


class TranscriptionsApi:
    """Serves `/v1/audio/transcriptions`."""

    def __init__(self, directory: ModelDirectory, transcriber: Transcriber, gateway: ApiGateway) -> None:
        self._directory = directory
        self._transcriber = transcriber
        self._gateway = gateway

    @property
    def route(self) -> HttpRoute:
        """The route."""
        return self._gateway.route("POST", "/v1/audio/transcriptions", self._serve)

    async def _serve(self, request: web.Request, call: ApiCall) -> web.Response:
        fields, recording = _parse_form(request, call.raw)
        call.raw = b""
        form = fields.get("response_format", "json")
        if form not in {"json", "text"}:
            raise invalid("response_format: json and text are served", "response_format", "unsupported_parameter")
        if fields.get("stream", "false").lower() == "true":
            raise invalid("stream: a transcript is answered at once", "stream", "unsupported_parameter")
        name = fields.get("model", AUTO)
        call.facts["asked"] = name[:100]
        # The bot's own recordings are voice messages of one format, without further settings.
        is_long = recording.seconds > LONG_RECORDING_S
        spec = replace(
            await self._directory.spec(call.token, AUTO), unusual=frozenset({Capability.SETTINGS}), is_long=is_long
        )
        try:
            choice = self._transcriber.find(name)
        except UnknownProvider:
            raise model_not_found(name) from None
        found = await self._transcriber.transcribe(recording, spec.with_choice(choice))
        call.facts["answered"] = f"{found.provider}/{found.model}"
        if form == "text":
            return web.Response(text=found.text + "\n")
        return web.json_response({"text": found.text})


def _parse_form(request: web.Request, raw: bytes) -> tuple[Mapping[str, str], Recording]:
    """Returns the fields of a form, and its recording."""
    boundary = request.headers.get("Content-Type", "").partition("boundary=")[2].split(";")[0].strip().strip('"')
    if request.content_type != "multipart/form-data" or not boundary:
        raise invalid("Send a form with the header Content-Type: multipart/form-data.")
    fields: dict[str, str] = {}
    found: tuple[str, str, bytes] | None = None
    # The first and the last piece are the preamble and the epilogue.
    for piece in (b"\r\n" + raw).split(b"\r\n--" + boundary.encode())[1:-1]:
        head, _, content = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = _headers(head)
        _, parameters = parse_content_disposition(headers.get("content-disposition"))
        name = parameters.get("name", "")
        if name == "file":
            filename = content_disposition_filename(parameters) or "audio"
            found = (filename[-100:], headers.get("content-type", "application/octet-stream"), content)
        elif name in _TEXT_FIELDS:
            fields[name] = content.decode(errors="replace").strip()
    if found is None or not found[2]:
        raise invalid("file: is missing or empty", "file")
    name, media_type, data = found
    return fields, Recording(
        data, name, media_type, fields.get("language") or None, fields.get("prompt") or None, _number(fields)
    )


def _headers(head: bytes) -> Mapping[str, str]:
    lines = (line.partition(":") for line in head.decode("utf-8", errors="replace").split("\r\n"))
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _number(fields: Mapping[str, str]) -> float | None:
    given = fields.get("temperature")
    if not given:
        return None
    try:
        number = float(given)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise invalid("temperature: must be a number from 0 to 1", "temperature")
    return number
