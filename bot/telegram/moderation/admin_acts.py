"""Acts of admins in moderated groups: checks who may act, and records the acts."""

from aiogram.types import CallbackQuery, Message

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.api.updates import is_group
from bot.telegram.delivery.replies import Replies
from services.admin.audit import Audit, AuditDetail
from services.moderation.domain.ports import Standing
from services.moderation.domain.settings import GroupSettings
from services.moderation.records.groups import GroupStore

_DENIALS = {Standing.MEMBER: "moderation-admins-only", Standing.UNKNOWN: "rights-unknown"}


class AdminActs:
    """Checks commands and presses, of which Telegram is asked anew each time, and records them in the audit log."""

    def __init__(self, *, admins: GroupAdmins, groups: GroupStore, audit: Audit, replies: Replies) -> None:
        self._admins = admins
        self._groups = groups
        self._audit = audit
        self._replies = replies

    async def find_denial(self, group_id: int, user_id: int) -> str | None:
        """Returns the text key of the reason why a user may not act in a group; None for its admins."""
        return _DENIALS.get(await self._admins.fetch_standing(group_id, user_id))

    async def find_author_denial(self, message: Message) -> str | None:
        """Returns the text key of the reason why the author of a message may not act; None for admins of its group."""
        return _DENIALS.get(await self._admins.fetch_author_standing(message))

    async def find_settings(self, message: Message, *, admins_only: bool = True) -> GroupSettings | None:
        """Returns the settings of a command's group, at most a second old; None, with a reply, if it is refused.

        It is refused in private chats, where moderation is off, and if it is for admins only, to members.
        """
        if not is_group(message):
            await self._replies.say(message, "moderation-groups-only")
            return None
        denial = await self.find_author_denial(message) if admins_only else None
        if denial is not None:
            await self._replies.say(message, denial)
            return None
        settings = await self._groups.get(message.chat.id)
        if settings is None or not settings.is_on:
            await self._replies.say(message, "moderation-off-here")
            return None
        return settings

    async def record(
        self, event: Message | CallbackQuery, act: str, detail: AuditDetail | str, group_id: int | None = None
    ) -> None:
        """Records `moderation.<act>` of the author of a message, or of the presser of a button.

        Args:
            group_id: the group that the act is about; by default that of the message.
        """
        message = event if isinstance(event, Message) else event.message
        user = event.from_user
        target = group_id if group_id is not None else message.chat.id if message is not None else 0
        await self._audit.record(user.id if user is not None else 0, f"moderation.{act}", str(target), detail)
