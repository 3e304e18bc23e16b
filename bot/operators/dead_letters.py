"""`/dead`: parses the command and words its result for operators."""

from collections.abc import Sequence
from datetime import tzinfo

import structlog

from bot.operators.formatting import Wording
from core.i18n import Texts
from services.admin.audit import Audit
from services.inbox.dead_letters import DeadLetter
from services.inbox.inbox import Inbox

log = structlog.get_logger()

SHOWN = 10


class DeadLetterCommands:
    """The `/dead` command and its buttons. Each act is recorded in the audit log.

    Args:
        zone: time zone of displayed times.
    """

    def __init__(self, inbox: Inbox, audit: Audit, zone: tzinfo, texts: Texts | None = None) -> None:
        self._texts = texts or Texts()
        self._inbox = inbox
        self._audit = audit
        self._zone = zone

    async def newest(self, limit: int = SHOWN) -> list[DeadLetter]:
        """Returns the newest dead letters.

        Raises:
            StorageError: the database fails.
        """
        return await self._inbox.dead_letters.newest(limit)

    async def count(self, limit: int) -> int:
        """Returns the number of dead letters, at most `limit`.

        Raises:
            StorageError: the database fails.
        """
        return await self._inbox.dead_letters.count(limit)

    async def run(self, arguments: str, actor_id: int, language: str | None = None) -> str:
        """Runs the command and returns its result as text.

        Args:
            arguments: empty for the list, or `replay` or `drop` with the number of a letter.
            actor_id: id recorded in the audit log.

        Raises:
            StorageError: the database fails.
        """
        say = Wording(self._texts, language)
        match arguments.lower().split():
            case []:
                return format_dead_letters(await self.newest(), self._zone, say)
            case ["replay" | "drop" as verb, number] if number.isdecimal():
                is_replay = verb == "replay"
                act = self.replay if is_replay else self.drop
                is_done = await act(int(number), actor_id)
                key = ("dead-replayed" if is_replay else "dead-dropped") if is_done else "dead-none-such"
                return say.get(key, number=str(int(number)))
            case _:
                return say.get("dead-usage")

    async def replay(self, number: int, actor_id: int) -> bool:
        """Queues the job of a letter again; False if there is no such letter.

        Raises:
            StorageError: the database fails.
        """
        letter = await self._inbox.dead_letters.get(number)
        if letter is None:
            return False
        await self._inbox.replay(letter)
        await self._record("dead.replay", letter, actor_id)
        return True

    async def drop(self, number: int, actor_id: int) -> bool:
        """Deletes a letter; False if there is no such letter.

        Raises:
            StorageError: the database fails.
        """
        letter = await self._inbox.dead_letters.get(number)
        if letter is None or not await self._inbox.dead_letters.drop(number):
            return False
        await self._record("dead.drop", letter, actor_id)
        return True

    async def _record(self, action: str, letter: DeadLetter, actor_id: int) -> None:
        log.info("admin.acted", action=action, target=letter.job.id, actor_id=actor_id)
        await self._audit.try_record(actor_id, action, letter.job.id, letter.reason)


def format_dead_letters(letters: Sequence[DeadLetter], zone: tzinfo, say: Wording) -> str:
    """Formats dead letters with origin and reason, without their content; times are in `zone`."""
    if not letters:
        return say.get("dead-none")
    lines = [
        f"{letter.id}. {letter.failed_at.astimezone(zone):%Y-%m-%d %H:%M %Z}, {letter.job.lane}, {letter.job.id}\n"
        f"   {letter.reason}"
        for letter in letters
    ]
    return "\n\n".join([say.get("dead-title"), *lines, say.get("dead-usage")])
