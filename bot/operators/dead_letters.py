"""What admins do with the dead letters: `/dead` and its buttons."""

from collections.abc import Sequence

import structlog

from core.errors import StorageError
from services.admin.audit import Audit
from services.inbox.dead_letters import DeadLetter
from services.inbox.inbox import Inbox

log = structlog.get_logger()

USAGE = "Usage: /dead [replay <number> | drop <number>]"
SHOWN = 10


class DeadLetterCommands:
    """The acts of admins on dead letters, each answered with a text for whoever did it and noted in the audit log.

    The texts are for operators and in English. Whether somebody is an admin is the surface's to know.

    Args:
        inbox: where the letters are.
        audit: where acts are noted.
    """

    def __init__(self, inbox: Inbox, audit: Audit) -> None:
        self._inbox = inbox
        self._audit = audit

    async def newest(self) -> list[DeadLetter]:
        """Those that are shown, newest first.

        Raises:
            StorageError: the database does not answer.
        """
        return await self._inbox.dead_letters.newest(SHOWN)

    async def run(self, arguments: str, actor_id: int) -> str:
        """Carry out what follows `/dead`, and say what came of it.

        Args:
            arguments: nothing for the list, or `replay` or `drop` with a letter's number.
            actor_id: who does it, for the audit log.

        Raises:
            StorageError: the database does not answer.
        """
        match arguments.lower().split():
            case []:
                return listed(await self.newest())
            case ["replay", number] if number.isdecimal():
                return await self._replay(int(number), actor_id)
            case ["drop", number] if number.isdecimal():
                return await self._drop(int(number), actor_id)
            case _:
                return USAGE

    async def _replay(self, number: int, actor_id: int) -> str:
        letter = await self._inbox.dead_letters.get(number)
        if letter is None:
            return f"There is no dead letter {number}."
        await self._inbox.replay(letter)
        return await self._done(f"{number} is done again. If it fails once more it comes back here.", actor_id, letter)

    async def _drop(self, number: int, actor_id: int) -> str:
        letter = await self._inbox.dead_letters.get(number)
        if letter is None or not await self._inbox.dead_letters.drop(number):
            return f"There is no dead letter {number}."
        return await self._done(f"{number} is thrown away.", actor_id, letter, action="dead.drop")

    async def _done(self, text: str, actor_id: int, letter: DeadLetter, action: str = "dead.replay") -> str:
        log.info("admin.acted", action=action, target=letter.job.id, actor_id=actor_id)
        try:
            await self._audit.record(actor_id, action, letter.job.id, letter.reason)
        except StorageError as error:
            log.error("audit.not_recorded", action=action, target=letter.job.id, error=str(error))  # noqa: TRY400 - the reason says it all
        return text


def listed(letters: Sequence[DeadLetter]) -> str:
    """Dead letters as an admin reads them: where they came from and why they failed, and nothing of what they say."""
    if not letters:
        return "There are no dead letters: everything that came in was handled."
    lines = [
        f"{letter.id}. {letter.failed_at:%Y-%m-%d %H:%M} UTC, {letter.job.lane}, {letter.job.id}\n   {letter.reason}"
        for letter in letters
    ]
    return "\n\n".join(["Dead letters, newest first. They were tried again and again.", *lines, USAGE])
