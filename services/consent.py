"""Whether the messages of a chat may go to providers that are not on the operator's own machines."""

from core.i18n import Texts
from services.llm.routing.fallback import LLMProviderFallback
from services.preferences import PreferenceStore


class Consent:
    """What holds for a chat, and how that is changed. Methods raise StorageError where the database fails.

    Args:
        preferences: where each chat's choice is.
        fallback: knows the providers.
        texts: what users are told.
        is_asked: REMOTE_CONSENT is `ask`; if not, the operator decided for everybody.
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
        """Whether there is anything for a chat to decide."""
        return self._is_asked and bool(self._remote)

    async def standing(self, scope: str, language: str | None) -> str:
        """What holds in a chat, in words."""
        if not self._remote:
            return self._texts.get("privacy-none", language)
        if not self._is_asked:
            return self._texts.get("privacy-granted-by-operator", language, providers=self._remote)
        if (await self._preferences.get(scope)).remote_consent:
            return self._texts.get("privacy-remote", language, providers=self._remote)
        return self._texts.get("privacy-local-only", language)

    async def decide(self, scope: str, language: str | None, *, granted: bool) -> str:
        """Take a chat's decision; what to say to it."""
        await self._preferences.set_remote_consent(scope, granted=granted)
        return self._texts.get("consent-granted" if granted else "consent-withheld", language)
