"""Preferences of chats, their consent to remote providers, and the languages that people and groups chose.

A preference is not cached: a read is one primary key look-up, and another replica may have written a moment ago. The
chosen languages are few and needed for every message, so all of them stand in memory; changes of other replicas follow
within seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

import structlog
from sqlalchemy import Connection, bindparam, select

from core.clock import Clock
from core.db.database import Database
from core.db.tables import LanguageRow, PreferenceRow
from core.errors import StorageError
from core.i18n import Texts
from core.messages import ChatRef, UserRef
from services.llm.routing.fallback import LLMProviderFallback

log = structlog.get_logger()

FOLLOW_S = 3.0
"""Pause between two looks at the languages that other replicas changed."""
FULL_LOOKS = 200
"""Looks after which everything is read again."""
OVERLAP = timedelta(seconds=30)
"""Changes that are this old are read again: clocks of replicas differ, and transactions take time."""
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
_BY_SCOPE = select(*_COLUMNS).where(PreferenceRow.scope == bindparam("of"))
"""Built once: building a statement, and its key in the cache of compiled ones, takes as long as to execute it."""


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
    row = connection.execute(_BY_SCOPE, {"of": scope}).first()
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
        """Shows or hides the provider under each answer."""
        await self._put(scope, footers=shown)

    async def set_remote_consent(self, scope: str, *, granted: bool) -> None:
        """Allows or forbids remote providers for this chat."""
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
        fallbacks: fallback services of the chat, and of other capabilities that send parts of it to providers.
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


class Languages:
    """The chosen languages by person and chat, such as `telegram:7`.

    Args:
        follow_s: pause between two looks at the changes of other replicas.
    """

    def __init__(self, database: Database, clock: Clock, follow_s: float = FOLLOW_S) -> None:
        self._database = database
        self._clock = clock
        self._follow_s = follow_s
        self.chosen: Mapping[str, str] = {}
        """Replaced by each change. A person or chat without an entry has the language of the client."""
        self._seen: datetime | None = None

    async def load(self, *, is_full: bool = False) -> None:
        """Reads the choices that changed since the last call; the first call reads all of them.

        Args:
            is_full: reads all of them again: rows that were deleted by /forget do not show among the changes.

        Raises:
            StorageError: the database fails.
        """
        since = None if is_full else self._seen
        query = select(LanguageRow.owner, LanguageRow.language, LanguageRow.updated_at)
        if since is not None:
            query = query.where(LanguageRow.updated_at >= since - OVERLAP)
        rows = await self._database.run(lambda connection: connection.execute(query).all(), reading=True)
        known = self.chosen if since is not None else dict[str, str]()
        self.chosen = _changed(known, {owner: language for owner, language, _ in rows})
        self._seen = max([row.updated_at for row in rows], default=since)

    async def run(self) -> None:
        """Follows the changes of other replicas until cancelled; returns at once where there are none."""
        looks = 0
        while not self._database.is_embedded:
            await self._clock.sleep(self._follow_s)
            looks += 1
            try:
                await self.load(is_full=looks % FULL_LOOKS == 0)
            except StorageError as error:
                log.warning("languages.not_followed", error=str(error))

    async def choose(self, owner: UserRef | ChatRef, language: str | None) -> None:
        """Stores the language of a person or a chat; None: as the client says.

        Raises:
            StorageError: the database fails.
        """
        values = {"language": language, "updated_at": self._clock.now()}
        insert = self._database.insert(LanguageRow).values(owner=owner, **values)
        change = insert.on_conflict_do_update(index_elements=["owner"], set_=values)
        await self._database.run(lambda connection: connection.execute(change) and None)
        self.chosen = _changed(self.chosen, {owner: language})

    def forget(self, owner: UserRef) -> None:
        """Drops the choice of a person from memory; its row is erased with the person."""
        self.chosen = _changed(self.chosen, {owner: None})


def _changed(chosen: Mapping[str, str], changes: Mapping[str, str | None]) -> Mapping[str, str]:
    return {owner: language for owner, language in {**chosen, **changes}.items() if language is not None}
