"""Transcribes speech with failover over VOICE_PROVIDERS."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from openai import AsyncOpenAI
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.usage import RequestUsage

from core.errors import AllProvidersFailed, RequestRejected, UnknownProvider
from core.ogg import is_ogg_opus, ogg_seconds
from services.llm.capabilities.asking import Convert, SizedRequest, ask_first
from services.llm.capabilities.transcripts import TOKENS_A_SECOND, read_transcript
from services.llm.capabilities.wire import fetch_body, open_client
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Adaptation, Candidate, Capability, ModelChoice, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.server_words import find_message

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

AUTO = "auto"
BYTES_A_SECOND = 4000
"""Bytes per second assumed for audio of unknown length; voice messages have 2,000 to 4,000."""
_WORDS_A_SECOND = 4


@dataclass(frozen=True, slots=True)
class Recording:
    """Speech to transcribe.

    Args:
        name: file name; servers infer the format from its extension.
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
        """Length in seconds, estimated from the size unless the data is OGG/Opus."""
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
        builder: builds the clients of the providers.
        convert: converts OGG/Opus to MP3, for servers that cannot read it; None where it is damaged.
    """

    def __init__(self, fallback: LLMProviderFallback, builder: ModelBuilder, convert: Convert) -> None:
        self._fallback = fallback
        self._builder = builder
        self._convert = convert

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
        sending = _Sending(recording, self._convert)

        async def call(candidate: Candidate) -> tuple[str, RequestUsage]:
            spec = self._builder.spec(candidate.provider, candidate.model)
            text, usage = await _request(open_client(spec), spec.wire_name, sending.form)
            if not text and len(self._fallback.providers) > 1:
                sending.is_read = True
                silent.append(candidate)
                raise _Silence(candidate.model)
            return text, usage

        sent: list[ModelMessage] = [
            ModelRequest([UserPromptPart([BinaryContent(b"", media_type=recording.media_type)])])
        ]
        try:
            served = await ask_first(self._fallback, spec, sent, call, sending, sending.prepare)
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


class _Sending(SizedRequest):
    """A recording on its way to one candidate after the other: as it is, or as MP3 to a server that reads no OGG/Opus.

    Attributes:
        form: the recording as the current candidate gets it.
        is_read: whether that candidate has read it, so that its refusal is not about the format.
    """

    def __init__(self, recording: Recording, convert: Convert) -> None:
        seconds = recording.seconds
        super().__init__(round(seconds * TOKENS_A_SECOND), round(seconds * _WORDS_A_SECOND))
        self.form = recording
        self.is_read = False
        self._original = recording
        self._converted: Recording | None = None
        self._convert = convert

    def uses(self) -> frozenset[Capability]:
        """Returns the format while it may still be the cause of a refusal."""
        is_suspect = not self.is_read and is_ogg_opus(self._original.data)
        return frozenset({Capability.OPUS}) if is_suspect else frozenset()

    async def prepare(self, adaptation: Adaptation) -> None:
        """Converts the recording for a server that reads no OGG/Opus; one that cannot be converted is sent as it is."""
        self.is_read = False
        self.form = self._original
        if Capability.OPUS in adaptation.without and is_ogg_opus(self._original.data):
            self.form = self._converted = self._converted or await self._to_mp3()

    async def _to_mp3(self) -> Recording:
        data = await self._convert(self._original.data)
        if data is None:
            return self._original
        return replace(self._original, data=data, name="voice.mp3", media_type="audio/mpeg")


class _Silence(ModelHTTPError):
    """A candidate heard nothing: another one is asked, and the first is at fault only if that one hears something."""

    def __init__(self, model: str) -> None:
        super().__init__(422, model, {"error": {"message": "nothing was heard"}})


async def _request(client: AsyncOpenAI, model: str, recording: Recording) -> tuple[str, RequestUsage]:
    """Returns the text of a recording, empty for one that is too short to hear anything, and its usage.

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
    try:
        body = await fetch_body(call, model)
    except ModelHTTPError as error:
        if _is_too_short(error):
            return "", RequestUsage()
        raise
    return read_transcript(body, round(recording.seconds * TOKENS_A_SECOND))


def _is_too_short(error: ModelHTTPError) -> bool:
    """Returns whether a server refused a tap on the microphone: OpenAI by a code, Groq in words."""
    return (
        error.provider_error_code == "audio_too_short" or "audio file is too short" in find_message(error.body).lower()
    )
