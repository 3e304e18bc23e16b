"""Localised labels of moderation's enum values; each value has its own text."""

from aiogram.types import CallbackQuery, Message

from core.i18n import Texts
from services.admin.audit import Audit, AuditDetail
from services.moderation.domain.ports import Standing

_DENIALS = {Standing.MEMBER: "moderation-admins-only", Standing.UNKNOWN: "rights-unknown"}


def label(texts: Texts, language: str | None, kind: str, value: str, /, **arguments: str | int) -> str:
    """Returns the text with the key `kind-value`, such as `moderation-mode-dry`."""
    key = f"{kind}-{value}"
    return texts.get(key, language, **arguments)


def find_denial(standing: Standing) -> str | None:
    """Returns the text key that tells a user of this standing why an admin's act is not done; None for an admin."""
    return _DENIALS.get(standing)


class ModerationAudit:
    """Records the acts of admins in groups: `moderation.<act>` to the group."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def record(
        self, event: Message | CallbackQuery, act: str, detail: AuditDetail | str, group_id: int | None = None
    ) -> None:
        """Records an act of the author of a message, or of the presser of a button."""
        message = event if isinstance(event, Message) else event.message
        user = event.from_user
        target = group_id if group_id is not None else message.chat.id if message is not None else 0
        await self._audit.record(user.id if user is not None else 0, f"moderation.{act}", str(target), detail)
