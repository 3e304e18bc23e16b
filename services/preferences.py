"""Preferences of a chat: provider and model, footers, consent to remote providers, streaming, voice, persona.

Nothing is cached: a read is one primary key look-up, and another replica may have written a moment ago.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import PreferenceRow
from core.i18n import Texts
from services.llm.routing.fallback import LLMProviderFallback

StreamMode = Literal["edit", "draft", "off"]
VoiceReplies = Literal["never", "to_voice", "always"]
_COLUMNS = (
    PreferenceRow.provider,
    PreferenceRow.model,
    PreferenceRow.footers,
    PreferenceRow.remote_consent,
    PreferenceRow.stream_mode,
    PreferenceRow.voice_replies,
    PreferenceRow.persona,
)


@dataclass(frozen=True, slots=True)
class ChatPreferences:
    """The preferences of a chat; None where unset."""

    provider: str | None = None
    model: str | None = None
    footers: bool | None = None
    remote_consent: bool | None = None
    """A chat's consent to sending messages to providers outside the operator's own machines."""
    stream_mode: StreamMode | None = None
    voice_replies: VoiceReplies | None = None
    """When answers are sent as voice messages as well."""
    persona: str | None = None
    """Of threads without one of their own; see services/chat/personas.py."""


def read_preferences(connection: Connection, scope: str) -> ChatPreferences:
    """Reads the preferences of a chat."""
    row = connection.execute(select(*_COLUMNS).where(PreferenceRow.scope == scope)).first()
    return ChatPreferences() if row is None else ChatPreferences(*row)


class PreferenceStore:
    """Stores the preferences of all chats. Each method raises StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, scope: str) -> ChatPreferences:
        """Returns the preferences of a chat."""
        return await self._database.run(lambda connection: read_preferences(connection, scope), reading=True)

    async def set_model(self, scope: str, provider: str, model: str) -> None:
        """Asks this model first in this chat."""
        await self._put(scope, provider=provider, model=model)

    async def clear_model(self, scope: str) -> None:
        """Returns to the configured order."""
        await self._put(scope, provider=None, model=None)

    async def set_footers(self, scope: str, *, shown: bool) -> None:
        """Shows or hide the provider under each answer."""
        await self._put(scope, footers=shown)

    async def set_remote_consent(self, scope: str, *, granted: bool) -> None:
        """Allows or forbid remote providers for this chat."""
        await self._put(scope, remote_consent=granted)

    async def set_stream_mode(self, scope: str, mode: StreamMode | None) -> None:
        """Sets how answers of this chat are shown while they are written; None: as STREAM_MODE says."""
        await self._put(scope, stream_mode=mode)

    async def set_voice_replies(self, scope: str, replies: VoiceReplies) -> None:
        """Sets whether answers of this chat are spoken."""
        await self._put(scope, voice_replies=replies)

    async def set_persona(self, scope: str, persona: str | None) -> None:
        """Sets the persona of this chat's threads, in its stored form."""
        await self._put(scope, persona=persona)

    async def _put(self, scope: str, **choices: str | bool | None) -> None:
        values = {**choices, "updated_at": self._clock.now()}
        statement = self._database.insert(PreferenceRow).values(scope=scope, **values)
        change = statement.on_conflict_do_update(index_elements=["scope"], set_=values)
        await self._database.run(lambda connection: connection.execute(change) and None)


class Consent:
    """Reads and changes the consent of a chat. Methods raise StorageError where the database fails.

    Args:
        fallbacks: of the chat and of what else sends parts of it to providers.
        is_asked: whether REMOTE_CONSENT is `ask`; otherwise the operator has decided for all chats.
    """

    def __init__(
        self, preferences: PreferenceStore, fallbacks: Sequence[LLMProviderFallback], texts: Texts, *, is_asked: bool
    ) -> None:
        self._preferences = preferences
        self._texts = texts
        self._is_asked = is_asked
        self._fallbacks = fallbacks

    @property
    def _remote(self) -> str:
        remote = [each.id for fallback in self._fallbacks for each in fallback.providers if each.remote]
        return ", ".join(dict.fromkeys(remote))

    @property
    def is_open(self) -> bool:
        """True if a chat has something to decide."""
        return self._is_asked and bool(self._remote)

    async def describe(self, scope: str, language: str | None) -> str:
        """Returns the consent of a chat as text."""
        if not self._remote:
            return self._texts.get("privacy-none", language)
        if not self._is_asked:
            return self._texts.get("privacy-granted-by-operator", language, providers=self._remote)
        if (await self._preferences.get(scope)).remote_consent:
            return self._texts.get("privacy-remote", language, providers=self._remote)
        return self._texts.get("privacy-local-only", language)

    async def decide(self, scope: str, language: str | None, *, granted: bool) -> str:
        """Stores the decision of a chat. Returns the confirmation as text."""
        await self._preferences.set_remote_consent(scope, granted=granted)
        return self._texts.get("consent-granted" if granted else "consent-withheld", language)
