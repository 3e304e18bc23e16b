"""Synthesises speech with failover over SPEECH_PROVIDERS."""

from typing import TYPE_CHECKING, Any, cast

from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.usage import RequestUsage

from core.ogg import is_ogg_opus
from services.llm.capabilities.asking import Convert, SizedRequest, ask_first
from services.llm.capabilities.wire import fetch_body, open_client
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Candidate, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.faults.reasons import EmptyAnswer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DEFAULT_VOICE = "alloy"
VOICE_MARK = "@"
"""Separates a model from its voice in SPEECH_PROVIDERS."""
_SOUNDS = (b"OggS", b"RIFF", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xf1", b"fLaC")
"""Magic bytes of OGG, WAV, MP3, AAC and FLAC."""


class SpeechSynthesizer:
    """Synthesises speech.

    Args:
        fallback: the providers of SPEECH_PROVIDERS, with a health of their own.
        builder: builds the clients of the providers.
        convert: converts a sound to OGG/Opus, for servers that answer in another format than the one that is asked for.
    """

    def __init__(self, fallback: LLMProviderFallback, builder: ModelBuilder, convert: Convert) -> None:
        self._fallback = fallback
        self._builder = builder
        self._convert = convert

    async def speak(self, text: str, spec: RequestSpec) -> bytes:
        """Returns a text as OGG/Opus, which Telegram takes as a voice message.

        Raises:
            ProviderError: no provider spoke it, or another one could not help.
        """

        async def call(candidate: Candidate) -> tuple[bytes, RequestUsage]:
            return await self._ask(candidate, text), RequestUsage(input_tokens=len(text))

        sent: list[ModelMessage] = [ModelRequest([UserPromptPart(text)])]
        return (await ask_first(self._fallback, spec, sent, call, SizedRequest(len(text), 0))).value

    async def _ask(self, candidate: Candidate, text: str) -> bytes:
        spec = self._builder.spec(candidate.provider, candidate.model)
        model, _, voice = spec.wire_name.partition(VOICE_MARK)
        create = cast("Callable[..., Awaitable[Any]]", open_client(spec).audio.speech.with_raw_response.create)
        call = create(model=model, voice=voice or DEFAULT_VOICE, input=text, response_format="opus")
        sound = await fetch_body(call, model)
        if is_ogg_opus(sound):
            return sound
        converted = await self._convert(sound) if sound.startswith(_SOUNDS) else None
        if converted is None:
            raise EmptyAnswer("an answer without sound")
        return converted
