"""Whether the messages of a group may be judged by providers that are not on the operator's own machines."""

from services.moderation.domain.settings import GroupSettings
from services.moderation.records.groups import GroupStore
from services.preferences import PreferenceStore


class RemoteJudgingConsent:
    """What holds for a group. Methods raise StorageError where the database fails.

    Args:
        groups: each group's own switch.
        preferences: whether a chat agreed to remote providers at all.
        is_asked: REMOTE_CONSENT is `ask`; if not, the operator decided for everybody.
    """

    def __init__(self, groups: GroupStore, preferences: PreferenceStore, *, is_asked: bool) -> None:
        self._groups = groups
        self._preferences = preferences
        self._is_asked = is_asked

    async def is_allowed(self, settings: GroupSettings) -> bool:
        """Whether remote providers may judge: the group's switch is on, and the chat has agreed where it is asked."""
        if not settings.remote or not self._is_asked:
            return settings.remote
        return bool((await self._preferences.get(_scope(settings.group_id))).remote_consent)

    async def switch(self, settings: GroupSettings, *, allowed: bool) -> GroupSettings:
        """An admin switches it; where consent is asked for, switching it on is consent of the group."""
        if allowed and self._is_asked:
            await self._preferences.set_remote_consent(_scope(settings.group_id), granted=True)
        return await self._groups.change(settings, remote=allowed)


def _scope(group_id: int) -> str:
    return f"telegram:{group_id}"
