"""Consent of a chat to remote providers."""

from core.i18n import Texts
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore


class Consent:
    """Reads and changes the consent of a chat. Methods raise StorageError where the database fails.

    Args:
        is_asked: whether REMOTE_CONSENT is `ask`; otherwise the operator has decided for all chats.
    """

    def __init__(
        self, preferences: PreferenceStore, fallback: LLMProviderFallback, texts: Texts, *, is_asked: bool
    ) -> None:
        self._preferences = preferences
        self._texts = texts
        self._is_asked = is_asked
        self._remote = ", ".join(provider.id for provider in fallback.providers if provider.remote)

    @property
    def is_open(self) -> bool:
        """True if a chat has something to decide."""
        return self._is_asked and bool(self._remote)

    async def describe(self, scope: str, language: str | None) -> str:
        """Return the consent of a chat as text."""
        if not self._remote:
            return self._texts.get("privacy-none", language)
        if not self._is_asked:
            return self._texts.get("privacy-granted-by-operator", language, providers=self._remote)
        if (await self._preferences.get(scope)).remote_consent:
            return self._texts.get("privacy-remote", language, providers=self._remote)
        return self._texts.get("privacy-local-only", language)

    async def decide(self, scope: str, language: str | None, *, granted: bool) -> str:
        """Store the decision of a chat. Returns the confirmation as text."""
        await self._preferences.set_remote_consent(scope, granted=granted)
        return self._texts.get("consent-granted" if granted else "consent-withheld", language)
