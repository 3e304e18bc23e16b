"""Transcription of speech by the first of VOICE_PROVIDERS that does."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import httpx2
import openai
from openai import AsyncOpenAI
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.messages import BinaryContent, ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.usage import RequestUsage

from core.config.providers import ProviderKind
from core.errors import RequestRejected, UnknownProvider
from services.llm.capabilities.asking import ask_first
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.openai import build_azure_client, build_client
from services.llm.providers.spec import ModelSpec
from services.llm.request import Candidate, ModelChoice, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.faults.outcomes import EmptyAnswer

AUTO = "auto"
_VERSIONS: Mapping[ProviderKind, str] = {ProviderKind.GROQ: "/openai/v1", ProviderKind.MISTRAL: "/v1"}
"""Paths of the API below the base URLs that do not end in it."""


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
            text = (await _request(_client(spec), spec.wire_name, recording)).strip()
            if not text and len(self._fallback.providers) > 1:
                silent.append(candidate)
                raise _Silence(candidate.model)
            return text, RequestUsage()

        sent: list[ModelMessage] = [
            ModelRequest([UserPromptPart([BinaryContent(b"", media_type=recording.media_type)])])
        ]
        try:
            served = await ask_first(self._fallback, spec, sent, call)
        except RequestRejected:
            if not silent:
                raise
            return Transcription("", silent[0].provider.id, silent[0].model)
        return Transcription(served.value, served.candidate.provider.id, served.candidate.model)


class _Silence(ModelHTTPError):
    """A candidate heard nothing: another one is asked, and the first is at fault only if that one hears something."""

    def __init__(self, model: str) -> None:
        super().__init__(422, model, {"error": {"message": "nothing was heard"}})


def _client(spec: ModelSpec) -> AsyncOpenAI:
    if spec.provider.kind is ProviderKind.AZURE_OPENAI:
        return build_azure_client(spec)
    return build_client(spec, version=_VERSIONS.get(spec.provider.kind, ""))


async def _request(client: AsyncOpenAI, model: str, recording: Recording) -> str:
    """Returns the text of a recording.

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
    try:
        create = cast("Callable[..., Awaitable[object]]", client.audio.transcriptions.create)
        answer = await create(
            file=(recording.name, recording.data, recording.media_type),
            model=model,
            response_format="json",
            **{name: value for name, value in given.items() if value is not None},
        )
    except openai.APIStatusError as error:
        raise ModelHTTPError(
            error.status_code, model, error.body, headers=dict(error.response.headers),
            provider_error_code=error.code, provider_error_type=error.type,
        ) from error  # fmt: skip
    except openai.APIConnectionError as error:
        if isinstance(error.__cause__, httpx2.TransportError):
            raise error.__cause__ from error
        raise
    except (openai.APIError, ValueError) as error:
        raise EmptyAnswer("unreadable answer") from error
    # Some servers answer plain text whatever was asked for.
    text = answer if isinstance(answer, str) else getattr(answer, "text", None)
    if not isinstance(text, str):
        raise EmptyAnswer("unreadable answer")
    return text
