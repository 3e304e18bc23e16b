"""Consent of a group to judging by remote providers, those that do not run on the operator's own machines."""

from core.messages import Surface, chat_ref
from services.moderation.domain.settings import GroupSettings
from services.moderation.records.groups import GroupStore
from services.preferences import PreferenceStore


class RemoteJudgingConsent:
    """Reads and changes a group's consent. Methods raise StorageError when the database fails.

    Args:
        groups: holds each group's own switch.
        preferences: holds the chat's consent to remote providers.
        is_asked: REMOTE_CONSENT is `ask`; otherwise the operator consented for all chats.
    """

    def __init__(self, groups: GroupStore, preferences: PreferenceStore, *, is_asked: bool) -> None:
        self._groups = groups
        self._preferences = preferences
        self._is_asked = is_asked

    async def is_allowed(self, settings: GroupSettings) -> bool:
        """Returns whether remote providers may judge: the switch is on, and the chat consented if it was asked."""
        if not settings.remote or not self._is_asked:
            return settings.remote
        return bool((await self._preferences.get(chat_ref(Surface.TELEGRAM, settings.group_id))).remote_consent)

    async def switch(self, settings: GroupSettings, *, allowed: bool) -> GroupSettings:
        """Sets the group's switch. Where consent is asked for, switching it on grants the chat's consent."""
        if allowed and self._is_asked:
            await self._preferences.set_remote_consent(chat_ref(Surface.TELEGRAM, settings.group_id), granted=True)
        return await self._groups.change(settings, remote=allowed)
