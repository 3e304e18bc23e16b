"""Two models on one question: picks the pair, and streams the answer of each into a reply of its own."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import tzinfo

from pydantic import BaseModel
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import ModelRequestParameters

from core.config.providers import ProviderSettings
from core.errors import UnderstudyError
from core.i18n import Texts
from core.messages import ChatRef, Incoming
from services.chat.failures import classify_failure
from services.chat.prompts import CHARACTER, FRAMES, to_prompt
from services.chat.reply import Reply, ReplyPhase
from services.llm.models.factory import LLMModelFactory
from services.llm.models.routed import RoutedModel
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore, StreamMode

PURPOSE = "compare"


class PairUnavailable(UnderstudyError):
    """The two models cannot be compared.

    Args:
        key: text key of the reason, with its arguments.
    """

    def __init__(self, key: str, **arguments: str) -> None:
        super().__init__(key)
        self.key = key
        self.arguments = arguments


@dataclass(frozen=True, slots=True)
class Contender:
    """A model in a comparison."""

    provider: ProviderSettings
    model: str

    @property
    def name(self) -> str:
        """Its name in votes."""
        return f"{self.provider.id}/{self.model}"


@dataclass(frozen=True, slots=True)
class Contest:
    """A question to two models."""

    contenders: tuple[Contender, Contender]
    question: str
    local_only: bool
    stream_mode: StreamMode | None = None
    """The chat's own way to show answers; None: that of the operator."""


class Contests:
    """Prepares contests and asks their models. No other provider steps in within a side.

    Args:
        asks_consent: whether a chat must agree before its messages go to remote providers.
        zone: time zone of displayed times.
    """

    def __init__(
        self,
        models: LLMModelFactory[BaseModel],
        fallback: LLMProviderFallback,
        preferences: PreferenceStore,
        texts: Texts,
        zone: tzinfo,
        *,
        asks_consent: bool,
    ) -> None:
        self._models = models
        self._fallback = fallback
        self._preferences = preferences
        self._texts = texts
        self._zone = zone
        self._asks_consent = asks_consent

    async def prepare(self, arguments: str, chat: ChatRef, *, is_admin: bool) -> Contest:
        """Returns the contest that the arguments name: `a/m b/m QUESTION`, or a question to the first two models.

        Args:
            is_admin: whether the person may pick among all live models of a provider with `<ID>_LIVE_MODELS=admins`.

        Raises:
            PairUnavailable: there are no such two models for this chat.
            StorageError: the choices of the chat cannot be read.
        """
        preference = await self._preferences.get(chat)
        local_only = self._asks_consent and not preference.remote_consent
        named, question = self._read_names(arguments)
        if len(named) == 1:
            raise PairUnavailable("compare-one-named")
        found = [self._find(name, is_admin=is_admin) for name in named] or self._first_two(local_only=local_only)
        if len(found) <= 1:
            raise PairUnavailable("compare-too-few")
        first, second = found
        if first.name == second.name:
            raise PairUnavailable("compare-same", name=first.name)
        for each in found:
            if local_only and each.provider.remote:
                raise PairUnavailable("compare-remote", name=each.name)
        return Contest((first, second), question, local_only, preference.stream_mode)

    async def answer(self, contest: Contest, contender: Contender, incoming: Incoming, reply: Reply) -> None:
        """Streams the answer of one model into a reply, and ends it; failures end it with a notice.

        The incoming message is the question alone, without the command and the names of the models. A cancellation
        by Stop ends it as stopped, another one as interrupted.
        """
        choice = ModelChoice(contender.provider.id, contender.model)
        spec = RequestSpec(
            PURPOSE, user=incoming.user_ref, chat=incoming.key.chat_ref, choice=choice, local_only=contest.local_only,
            is_pinned=True,
        )  # fmt: skip
        prompt = replace(to_prompt(incoming), instructions=f"{CHARACTER}\n{FRAMES}")
        language = incoming.speaker.language

        async def write(text: str) -> None:
            reply.write(text)

        try:
            response = await ask_model(self._models.create_routed_model(spec), [prompt], write)
            reply.is_cut = response.finish_reason == "length"
            reply.end(ReplyPhase.COMPLETE, self._texts.get("answer-cut", language) if reply.is_cut else None)
        except asyncio.CancelledError:
            phase, key = (
                (ReplyPhase.STOPPED, "stopped") if reply.stop_wanted else (ReplyPhase.INTERRUPTED, "handed-back")
            )
            reply.end(phase, self._texts.get(key, language))
            raise
        except Exception as error:  # noqa: BLE001 - the other side goes on; `classify_failure` logs a bug
            outcome = classify_failure(error, reply, self._zone)
            key = "compare-side-failed" if outcome.key in {None, "failed-all-providers"} else outcome.key
            reply.end(outcome.phase, self._texts.get(key or "compare-side-failed", language, **outcome.arguments))

    def _read_names(self, arguments: str) -> tuple[list[str], str]:
        """Returns the names of models at the beginning, two at most, and the question."""
        known = {provider.id.casefold() for provider in self._fallback.providers}
        names, rest = list[str](), arguments.strip()
        while rest and len(names) <= 1:
            word = rest.split(maxsplit=1)[0]
            provider, slash, model = word.partition("/")
            if not slash or not model or provider.casefold() not in known:
                break
            names.append(word)
            rest = rest.removeprefix(word).strip()
        return names, rest

    def _find(self, name: str, *, is_admin: bool) -> Contender:
        provider_id, _, model = name.partition("/")
        for provider in self._fallback.providers:
            if provider.id.casefold() == provider_id.casefold():
                if model in provider.models or provider.live_models.is_open_to(is_admin=is_admin):
                    return Contender(provider, model)
                raise PairUnavailable("compare-unknown", name=name, known=", ".join(provider.models))
        raise PairUnavailable("compare-too-few")

    def _first_two(self, *, local_only: bool) -> Sequence[Contender]:
        """Returns the default models of the first providers in the order, then their other models."""
        by_id = {provider.id: provider for provider in self._fallback.providers}
        order = [by_id[name] for name in self._fallback.order() if name in by_id]
        usable = [provider for provider in order if not (local_only and provider.remote)]
        defaults = [Contender(provider, provider.default_model) for provider in usable]
        others = [
            Contender(provider, model)
            for provider in usable
            for model in provider.models
            if model != provider.default_model
        ]
        return [*defaults, *others][:2]


async def ask_model(
    model: RoutedModel, messages: Sequence[ModelMessage], write: Callable[[str], Awaitable[None]]
) -> ModelResponse:
    """Asks one model, and writes its text as it arrives.

    Raises:
        ProviderError: it did not answer, or not to the end.
    """
    async with model.open_stream(list(messages), None, ModelRequestParameters()) as stream:
        async for event in stream:
            match event:
                case (
                    PartDeltaEvent(delta=TextPartDelta(content_delta=text))
                    | PartStartEvent(part=TextPart(content=text))
                ) if text:
                    await write(text)
                case _:
                    pass
    return stream.get()
