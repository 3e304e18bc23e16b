"""Chat in the terminal: asks the chat service and prints the answer as it streams."""

import asyncio
import getpass
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bot.console.terminal import Terminal
from core.background import cancel_and_wait
from core.clock import Clock
from core.i18n import Texts
from core.messages import ChatKind, ConversationKey, Incoming, Speaker, Surface
from services.chat.reply import Reply, ReplyPhase, ShownPicture
from services.chat.service import ChatService
from services.chat.store.conversation import Turn
from services.chat.turn import TurnRequest
from services.llm.request import ModelChoice

KEY = ConversationKey(Surface.CONSOLE, 0)
TEXT_WINDOW_S = 0.05
"""Interval at which collected text is printed; longer intervals look uneven."""
WAIT_REFRESH_S = 0.3
"""Refresh interval of the status line during a wait, and delay after which a partial word is printed."""
USER_ID = 0
"""Id of the console's user, which Telegram never assigns."""


class ConsoleChat:
    """Sends messages and prints answers as they stream.

    Args:
        pictures: folder in which the pictures of answers are saved.
        asked: returns the ids of the providers that are being asked now.
    """

    def __init__(
        self,
        chat: ChatService,
        speaker: Speaker,
        texts: Texts,
        clock: Clock,
        terminal: Terminal,
        *,
        pictures: Path,
        asked: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._chat = chat
        self._speaker = speaker
        self._texts = texts
        self._clock = clock
        self._terminal = terminal
        self._pictures = pictures
        self._asked = asked
        self._chosen: str | None = None
        self._reply: Reply | None = None
        self.is_any_unanswered = False
        """True once a message got no answer, or one that was cut off by anything but the user."""
        self.waits_for_consent = False
        """True if the last message needs consent to remote providers before it is answered."""

    @property
    def language(self) -> str | None:
        """Language of the user, an IETF tag."""
        return self._chosen or self._speaker.language

    def choose_language(self, language: str | None) -> None:
        """Sets the language of the user; None: that of the environment."""
        self._chosen = language

    def stop(self) -> bool:
        """Stops the current answer. Returns False if there is none, or it is stopping already."""
        if self._reply is None or self._reply.stop_wanted:
            return False
        self._reply.stop()
        return True

    async def ask(
        self, text: str, *, draws: bool = False, retry_of: Turn | None = None, choice: ModelChoice | None = None
    ) -> None:
        """Answers a message, or a turn again, optionally by a given provider.

        Args:
            draws: whether the text describes a picture to draw.
        """
        request = TurnRequest(replace(self.incoming(text), draws=draws), retry_of, choice)
        self._reply = reply = Reply(TEXT_WINDOW_S)
        turn = asyncio.create_task(self._chat.respond(request, reply), name="console.turn")
        # An unexpected failure would leave the reply running for ever.
        turn.add_done_callback(lambda _: reply.end(ReplyPhase.FAILED) if reply.phase is ReplyPhase.RUNNING else None)
        try:
            await self._show(reply)
            await turn
        finally:
            self._reply = None
            await cancel_and_wait(turn)

    def incoming(self, text: str) -> Incoming:
        """Returns a message of the user."""
        speaker = replace(self._speaker, language=self.language)
        return Incoming(KEY, ChatKind.PRIVATE, speaker, text, self._clock.now())

    async def print_answer(self, reply: Reply) -> None:
        """Prints an answer as it streams, until its end."""
        terminal, shown = self._terminal, 0
        waiting = asyncio.create_task(self._show_wait(reply), name="console.wait")
        try:
            while True:
                await reply.wait_beyond(shown)
                text = reply.text
                terminal.write(text[shown:])
                shown = len(text)
                if reply.phase is not ReplyPhase.RUNNING:
                    break
        finally:
            await cancel_and_wait(waiting)
        terminal.end_line()
        for number, picture in enumerate(reply.pictures):
            await self._save_picture(picture, number)

    def print_remarks(self, reply: Reply) -> None:
        """Prints the notice and the small print of an answer."""
        for remark in (reply.notice, reply.footer):
            if remark is not None:
                self._terminal.print_dimmed(remark)

    async def _save_picture(self, picture: ShownPicture, number: int) -> None:
        path = self._pictures / f"{self._clock.now():%Y%m%d-%H%M%S}-{number}-{Path(picture.name).name}"
        try:
            await asyncio.to_thread(_write_private, path, picture.data)
        except OSError as error:
            self._terminal.print(
                self._texts.get("console-picture-unsaved", self.language, path=str(path), reason=str(error.strerror))
            )
        else:
            self._terminal.print(self._texts.get("console-picture-saved", self.language, path=str(path)))

    async def _show(self, reply: Reply) -> None:
        terminal = self._terminal
        await self.print_answer(reply)
        self.waits_for_consent = reply.needs_consent
        self.is_any_unanswered |= reply.needs_consent or reply.phase not in {ReplyPhase.COMPLETE, ReplyPhase.STOPPED}
        if failures := "; ".join(f"{provider}: {reason}" for provider, reason in reply.failed_over):
            terminal.print_highlighted(
                failures
                if reply.provider is None
                else self._texts.get("console-failed-over", self.language, failed=failures, provider=reply.provider)
            )
        self.print_remarks(reply)
        if reply.needs_consent:
            terminal.print_dimmed(self._texts.get("console-privacy-usage", self.language))
        elif reply.phase in {ReplyPhase.FAILED, ReplyPhase.INTERRUPTED} and reply.turn_id is not None:
            terminal.print_dimmed(self._texts.get("console-retry", self.language))
        terminal.print_blank_line()

    async def _show_wait(self, reply: Reply) -> None:
        """Shows the provider or the tool work until there is text; prints a partial word when the text pauses."""
        seen = 0
        while True:
            if not reply.text:
                asked = ", ".join(self._asked())
                waiting = self._texts.get("console-asking", self.language, provider=asked) if asked else ""
                if line := reply.activity or waiting:
                    self._terminal.show_status(line)
            elif len(reply.text) == seen:
                self._terminal.flush_word()
            seen = len(reply.text)
            await self._clock.sleep(WAIT_REFRESH_S)


def _write_private(path: Path, data: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(data)


def current_speaker(environ: Mapping[str, str]) -> Speaker:
    """Returns the logged-in user with the language of the environment."""
    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):
        # A container may run under a user id without a name.
        name = "you"
    return Speaker(USER_ID, name, environment_language(environ))


def environment_language(environ: Mapping[str, str]) -> str | None:
    """Returns the language of a POSIX environment as an IETF tag: `ru-RU` for `ru_RU.UTF-8`, None for `C`."""
    locale = next(filter(None, (environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    tag = locale.partition(".")[0].partition("@")[0].replace("_", "-")
    return None if tag in {"", "C", "POSIX"} else tag
