"""Answers mentions in chats that the bot is not in: one prompt, one answer, nothing stored.

Neither the conversations nor the notes of the person who asks are used: strangers read the answer. Consent and budgets
are those of that person's private chat.
"""

from pydantic import BaseModel
from pydantic_ai import Agent

from core.messages import ChatRef, Incoming, UserRef
from services.budgets.budgets import Budgets
from services.chat.prompts import CHARACTER, FRAMES, to_prompt
from services.llm.models.factory import CHAT, LLMModelFactory
from services.llm.request import RequestSpec
from services.llm.routing.admission.budget_guard import BudgetKind
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore

GUEST = """\
You were mentioned in a chat of others, in which you are a guest and see this message only. It begins with the name \
of who wrote it. Answer it in at most three short paragraphs; do not begin with a name."""


class GuestAnswers:
    """Answers guests.

    Args:
        asks_consent: whether a chat must agree before its messages go to remote providers.
    """

    def __init__(
        self,
        models: LLMModelFactory[BaseModel],
        fallback: LLMProviderFallback,
        budgets: Budgets,
        preferences: PreferenceStore,
        *,
        asks_consent: bool,
    ) -> None:
        self._models = models
        self._fallback = fallback
        self._budgets = budgets
        self._preferences = preferences
        self._asks_consent = asks_consent
        self._agent = Agent(instructions=[CHARACTER, GUEST, FRAMES], output_type=str)

    async def admits(self, user: UserRef, chat: ChatRef) -> bool:
        """Returns whether a person may be answered: within their budgets, by a provider that they consented to.

        Raises:
            StorageError: the database fails.
        """
        if await self._is_local_only(chat) and all(provider.remote for provider in self._fallback.providers):
            return False
        for kind, owner in ((BudgetKind.USER, user), (BudgetKind.CHAT, chat), (BudgetKind.ALL, "")):
            state = await self._budgets.state(kind, owner)
            if state.limit_usd is not None and state.spent_usd >= state.limit_usd:
                return False
        return True

    async def answer(self, incoming: Incoming, user: UserRef, chat: ChatRef) -> str:
        """Returns the answer in Markdown.

        Args:
            user: who asks.
            chat: the person's private chat, whose consent and budget apply.

        Raises:
            ProviderError: no provider answered.
            StorageError: the database fails.
        """
        spec = RequestSpec(CHAT, user=user, chat=chat, local_only=await self._is_local_only(chat))
        result = await self._agent.run(
            message_history=[to_prompt(incoming)], model=self._models.create_routed_model(spec)
        )
        return result.output

    async def _is_local_only(self, chat: ChatRef) -> bool:
        return self._asks_consent and not (await self._preferences.get(chat)).remote_consent
