"""Transcribes speech with failover over VOICE_PROVIDERS, and reads every format in which servers answer."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from openai import AsyncOpenAI
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.usage import RequestUsage

from core.bounded_json import parse_json
from core.errors import AllProvidersFailed, RequestRejected, UnknownProvider
from core.ogg import is_ogg_opus, ogg_seconds
from services.llm.capabilities.asking import SizedRequest, ask_first
from services.llm.capabilities.wire import fetch_body, open_client
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Candidate, ModelChoice, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.faults.outcomes import EmptyAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AUTO = "auto"
TOKENS_A_SECOND = 10
"""A second of sound where a server counts no tokens: what OpenAI's models count. A price of `<ID>_PRICES` per million
tokens is that of 27.8 hours."""
BYTES_A_SECOND = 4000
"""Of sound whose length is unknown: voice messages have 2,000 to 4,000."""
_WORDS_A_SECOND = 4
MAX_COUNTED = 10_000_000
"""Tokens or seconds of a recording; a server that counts more is not believed."""
MAX_TRANSCRIPT = 100_000
"""Characters; an hour of quick speech has 60,000."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Speech to transcribe.

    Args:
        name: a file name, by whose ending servers know the format.
        language: an ISO 639-1 code, if known.
        prompt: words that may occur, such as names.
    """

    data: bytes
    name: str
    media_type: str = "application/octet-stream"
    language: str | None = None
    prompt: str | None = None
    temperature: float | None = None

    @property
    def seconds(self) -> float:
        """Its length; an estimate by its size where it is no OGG/Opus."""
        return ogg_seconds(self.data) if is_ogg_opus(self.data) else len(self.data) / BYTES_A_SECOND


@dataclass(frozen=True, slots=True)
class Transcription:
    """The text of a recording, and the provider and model that wrote it."""

    text: str
    provider: str
    model: str


class Transcriber:
    """Transcribes recordings.

    Args:
        fallback: the providers of VOICE_PROVIDERS, with a health of their own.
        builder: their connections.
    """

    def __init__(self, fallback: LLMProviderFallback, builder: ModelBuilder) -> None:
        self._fallback = fallback
        self._builder = builder

    @property
    def models(self) -> list[str]:
        """The models as `<provider>/<model>`, by priority."""
        return [f"{provider.id}/{model}" for provider in self._fallback.providers for model in provider.models]

    def find(self, name: str) -> ModelChoice | None:
        """Returns the choice of a name: `auto`, `<provider>/<model>`, or a model that some provider has.

        Raises:
            UnknownProvider: there is none.
        """
        if name == AUTO:
            return None
        for provider in self._fallback.providers:
            for model in provider.models:
                if name in {model, f"{provider.id}/{model}"}:
                    return ModelChoice(provider.id, model)
        raise UnknownProvider(name, self.models)

    async def transcribe(self, recording: Recording, spec: RequestSpec) -> Transcription:
        """Transcribes a recording. One other candidate is asked where the first hears nothing.

        Returns:
            The transcript; its text is empty where two candidates heard nothing.

        Raises:
            ProviderError: no provider answered, or another one could not help.
        """
        silent: list[Candidate] = []

        async def call(candidate: Candidate) -> tuple[str, RequestUsage]:
            spec = self._builder.spec(candidate.provider, candidate.model)
            text, usage = await _request(open_client(spec), spec.wire_name, recording)
            if not text and len(self._fallback.providers) > 1:
                silent.append(candidate)
                raise _Silence(candidate.model)
            return text, usage

        sent: list[ModelMessage] = [
            ModelRequest([UserPromptPart([BinaryContent(b"", media_type=recording.media_type)])])
        ]
        tokens = round(recording.seconds * TOKENS_A_SECOND)
        shape = SizedRequest(tokens, round(recording.seconds * _WORDS_A_SECOND))
        try:
            served = await ask_first(self._fallback, spec, sent, call, shape)
        except (AllProvidersFailed, RequestRejected):
            if not silent:
                raise
            return Transcription("", silent[0].provider.id, silent[0].model)
        return Transcription(served.value, served.candidate.provider.id, served.candidate.model)

    async def hear(self, audio: bytes, spec: RequestSpec) -> str:
        """Returns the text of a voice message in OGG/Opus; empty where nothing was heard.

        Raises:
            ProviderError: as for `transcribe`.
        """
        return (await self.transcribe(Recording(audio, "voice.ogg", "audio/ogg"), spec)).text


class _Silence(ModelHTTPError):
    """A candidate heard nothing: another one is asked, and the first is at fault only if that one hears something."""

    def __init__(self, model: str) -> None:
        super().__init__(422, model, {"error": {"message": "nothing was heard"}})


async def _request(client: AsyncOpenAI, model: str, recording: Recording) -> tuple[str, RequestUsage]:
    """Returns the text of a recording, and its usage.

    Raises:
        ModelHTTPError: the server refused.
        httpx2.TransportError: it was not reached.
        EmptyAnswer: its answer is unreadable.
    """
    given: dict[str, Any] = {
        "language": recording.language,
        "prompt": recording.prompt,
        "temperature": recording.temperature,
    }
    create = cast("Callable[..., Awaitable[Any]]", client.audio.transcriptions.with_raw_response.create)
    call = create(
        file=(recording.name, recording.data, recording.media_type),
        model=model,
        response_format="json",
        **{name: value for name, value in given.items() if value is not None},
    )
    body = await fetch_body(call, model)
    return read_transcript(body, round(recording.seconds * TOKENS_A_SECOND))


_TIMESTAMP = re.compile(r"^(\d+|(\d+:)?\d+:\d+[.,]\d+ --> .*|WEBVTT.*|NOTE\b.*)$")
_SILENCE = re.compile(r"^[\[(*]+\s*(blank[_ ]audio|silence|no speech|inaudible)\s*[\])*]+$", re.IGNORECASE)
"""Words that servers of Whisper write for nothing."""


def read_transcript(body: bytes, tokens: int) -> tuple[str, RequestUsage]:
    """Reads an answer: JSON with a text or segments, an event stream, subtitles, or the plain text.

    Args:
        body: of a response with a status of success.
        tokens: of the recording, where the answer counts none.

    Raises:
        EmptyAnswer: it is an error, a page, or no text.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise EmptyAnswer("unreadable answer") from error
    usage = RequestUsage(input_tokens=tokens)
    stripped = text.lstrip()
    if stripped[:1] in {"{", "[", '"'}:
        try:
            parsed: object = parse_json(text)
        except ValueError:
            # A transcript may begin with a bracket.
            parsed = text
        found = _read_text(parsed)
        if found is None:
            raise EmptyAnswer("an answer without a text")
        text, usage = found, _read_usage(parsed) or usage
    elif stripped[:6].startswith(("data:", "event:")):
        text = _read_events(text)
    elif stripped[:15].lower().startswith(("<!doctype", "<html")):
        raise EmptyAnswer("a page in place of a transcript")
    elif stripped.startswith("WEBVTT") or " --> " in stripped[:80]:
        text = "\n".join(line for line in text.splitlines() if line.strip() and not _TIMESTAMP.match(line.strip()))
    text = text.strip()[:MAX_TRANSCRIPT]
    return "" if _SILENCE.match(text) else text, usage


def _read_text(parsed: object) -> str | None:
    """Returns the text in a JSON value, in the shapes that servers have; None where there is none."""
    if isinstance(parsed, str):
        return parsed
    if isinstance(parsed, list):
        texts = [_read_text(each) for each in cast("list[object]", parsed)]
        return None if None in texts else " ".join(text.strip() for text in texts if text)
    if not isinstance(parsed, dict):
        return None
    fields = cast("dict[str, object]", parsed)
    for name in ("text", "segments", "transcription"):
        if isinstance(fields.get(name), str | list):
            return _read_text(fields[name])
    return None


def _read_events(stream: str) -> str:
    """Returns the text of server-sent events: the whole one at their end, else the pieces together."""
    pieces: list[str] = []
    for line in stream.splitlines():
        data = line.removeprefix("data:").strip()
        if not line.startswith("data:") or data == "[DONE]":
            continue
        try:
            event: object = parse_json(data)
        except ValueError:
            pieces.append(data)
            continue
        fields = cast("dict[str, object]", event) if isinstance(event, dict) else {}
        if "error" in fields:
            raise EmptyAnswer("an error in the stream")
        if fields.get("type") == "transcript.text.done":
            return str(fields.get("text") or "")
        piece = event if isinstance(event, str) else fields.get("delta")
        pieces.append(piece if isinstance(piece, str) else _read_text(fields) or "")
    return "".join(pieces)


def _read_usage(parsed: object) -> RequestUsage | None:
    """Returns the tokens that an answer counts, or those of its seconds."""
    found = cast("dict[str, object]", parsed).get("usage") if isinstance(parsed, dict) else None
    if not isinstance(found, dict):
        return None
    usage = cast("dict[str, object]", found)
    tokens, written, seconds = (usage.get(name) for name in ("input_tokens", "output_tokens", "seconds"))
    if isinstance(tokens, int) and 0 < tokens < MAX_COUNTED:
        return RequestUsage(input_tokens=tokens, output_tokens=written if isinstance(written, int) else 0)
    if isinstance(seconds, int | float) and 0 < seconds < MAX_COUNTED:
        return RequestUsage(input_tokens=round(seconds * TOKENS_A_SECOND))
    return None
