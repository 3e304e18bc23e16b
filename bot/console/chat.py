"""The conversation of the one who sits at the terminal."""

import asyncio
import getpass
from collections.abc import Mapping

from bot.console.terminal import Terminal
from core.clock import Clock
from core.i18n import Texts
from core.messages import ChatKind, ConversationKey, Incoming, Speaker, Surface
from services.chat.reply import Reply, ReplyPhase
from services.chat.service import ChatService
from services.chat.store.conversation import Turn
from services.llm.routing.attempts import ModelChoice

KEY = ConversationKey(Surface.CONSOLE, 0)
USER_ID = 0
"""No user of Telegram has it."""


class ConsoleChat:
    """Asks, and shows the answer as it comes.

    Args:
        chat: answers.
        speaker: who sits there.
        texts: what they are told.
        clock: the time.
        screen: where it is shown.
    """

    def __init__(self, chat: ChatService, speaker: Speaker, texts: Texts, clock: Clock, screen: Terminal) -> None:
        self._chat = chat
        self._speaker = speaker
        self._texts = texts
        self._clock = clock
        self._screen = screen
        self._reply: Reply | None = None
        self.waits_for_consent = False
        """Whether the last message waits until remote providers may answer it."""

    @property
    def language(self) -> str | None:
        """The speaker's."""
        return self._speaker.language

    def stop(self) -> bool:
        """Stop the answer that is being made; False if there is none, or it was told so already."""
        if self._reply is None or self._reply.stop_wanted:
            return False
        self._reply.stop()
        return True

    async def ask(self, text: str, *, retry_of: Turn | None = None, choice: ModelChoice | None = None) -> None:
        """Have a message answered, or a turn answered again, by a certain provider if one is given."""
        incoming = Incoming(KEY, ChatKind.PRIVATE, self._speaker, text, self._clock.now())
        self._reply = reply = Reply()
        turn = asyncio.create_task(
            self._chat.respond(incoming, reply, retry_of=retry_of, choice=choice), name="console.turn"
        )
        # Should it fail in a way that it does not expect itself, nobody would end the reply.
        turn.add_done_callback(lambda _: reply.end(ReplyPhase.FAILED) if reply.phase is ReplyPhase.RUNNING else None)
        try:
            await self._show(reply)
            await turn
        finally:
            self._reply = None
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)

    async def _show(self, reply: Reply) -> None:
        screen, shown = self._screen, 0
        while True:
            await reply.changed(shown)
            text = reply.text
            screen.piece(text[shown:])
            shown = len(text)
            if reply.phase is not ReplyPhase.RUNNING:
                break
        screen.end_line()
        self.waits_for_consent = reply.needs_consent
        if reply.failed_over and reply.provider is not None:
            failed = "; ".join(f"{provider}: {reason}" for provider, reason in reply.failed_over)
            screen.note(self._texts.get("console-failed-over", self.language, failed=failed, provider=reply.provider))
        for remark in (reply.notice, reply.footer):
            if remark is not None:
                screen.aside(remark)
        if reply.needs_consent:
            screen.aside(self._texts.get("console-privacy-usage", self.language))
        screen.gap()


def speaker_of(environ: Mapping[str, str]) -> Speaker:
    """Whoever is logged in, with the language of their environment."""
    try:
        name = getpass.getuser()
    except (ImportError, KeyError, OSError):
        # A container may run under a number that has no name.
        name = "you"
    return Speaker(USER_ID, name, language_of(environ))


def language_of(environ: Mapping[str, str]) -> str | None:
    """The language of a POSIX environment as an IETF tag: `ru_RU.UTF-8` is `ru-RU`; None for `C`."""
    locale = next(filter(None, (environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    tag = locale.partition(".")[0].partition("@")[0].replace("_", "-")
    return None if tag in {"", "C", "POSIX"} else tag
