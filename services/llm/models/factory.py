"""Models for the rest of the house: each goes through the fallback service."""

from pydantic_ai.settings import ModelSettings

from core.errors import UnknownProvider
from services.llm.models.direct import DirectModel, Purpose
from services.llm.models.name_generator import NameGenerator, ThreadNameOutput
from services.llm.models.routed import RoutedModel, RoutedModelSource
from services.llm.models.streams import Listener
from services.llm.models.structured import StructuredOutput
from services.llm.routing.attempts import ModelChoice
from services.llm.routing.fallback import LLMProviderFallback
from services.moderation.domain.verdict import Verdict

NAMING = "naming"


class LLMModelFactory:
    """Makes the models that agents and direct requests use.

    Args:
        fallback: the provider fallback service.
        builder: builds the model of one provider.
    """

    def __init__(self, fallback: LLMProviderFallback, builder: RoutedModelSource) -> None:
        self._fallback = fallback
        self._builder = builder

    def create_llm_model_with_fallback(
        self,
        context: str,
        model_settings: ModelSettings | None = None,
        force_provider: ModelChoice | str | None = None,
        *,
        local_only: bool = False,
        speaker: str | None = None,
        listener: Listener | None = None,
        chat: str | None = None,
    ) -> RoutedModel:
        """A model that asks the providers in the order of the service, each request anew.

        Args:
            context: what it is for, for the log: `chat`.
            model_settings: settings of every request.
            force_provider: a user's explicit choice: a provider, or a provider and one of its models. It comes
                before the preferred provider and after one that an admin forced; if it fails the others follow.
            local_only: leave out remote providers, because nobody agreed to them.
            speaker: who is answered, such as `telegram:123`: after load shedding they stay with whoever answered.
            listener: hears the text of streamed answers; whoever iterates the stream then sees no deltas.
            chat: where, such as `telegram:-100`, for the usage.

        Raises:
            UnknownProvider: the choice is not a configured provider.
        """
        choice = ModelChoice(force_provider) if isinstance(force_provider, str) else force_provider
        usable = [provider.id for provider in self._fallback.providers]
        if choice is not None and choice.provider not in usable:
            raise UnknownProvider(choice.provider, usable)
        return RoutedModel(
            self._fallback,
            self._builder,
            context,
            choice,
            model_settings,
            local_only=local_only,
            speaker=speaker,
            listener=listener,
            chat=chat,
        )

    def create_moderation_model(
        self, context: str, *, local_only: bool = False, chat: str | None = None
    ) -> DirectModel[Verdict]:
        """A model that judges: each request gives a verdict.

        Args:
            context: what it is for, for the log and the usage: `moderation`.
            local_only: leave out remote providers, because nobody agreed to them.
            chat: the chat that is judged, such as `telegram:-100`.
        """
        purpose = Purpose(context, local_only=local_only, chat=chat)
        return DirectModel(self._fallback, self._builder, purpose, StructuredOutput(Verdict))

    def create_name_generator_model(
        self, language: str | None, max_length: int, *, local_only: bool = False, chat: str | None = None
    ) -> NameGenerator:
        """A model that names conversations.

        Args:
            language: the user's, an IETF tag, where it is known.
            max_length: characters that a name may have.
            local_only: leave out remote providers, because nobody agreed to them.
            chat: whose conversation it is, such as `telegram:123`.
        """
        purpose = Purpose(NAMING, local_only=local_only, chat=chat)
        model = DirectModel(self._fallback, self._builder, purpose, ThreadNameOutput(max_length))
        return NameGenerator(model, language, max_length)
