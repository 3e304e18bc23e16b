"""Displays an answer in a chat while it is produced, page by page."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

import structlog
from aiogram.types import MessageEntity

from bot.telegram.answers.answer_messages import AnswerMessages, AnswerSends, Keyboards, Place
from bot.telegram.answers.answer_pictures import AnswerPictures
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.delivery.outgoing import SendResult
from bot.telegram.markdown.pages import MESSAGE_LIMIT, Pages, RenderThread
from bot.telegram.markdown.render import Rendered, tidy, utf16_length
from core.clock import Clock
from services.chat.reply import Reply, ReplyPhase
from services.preferences import StreamMode

log = structlog.get_logger()

FIRST_AFTER_S = 1.0
FIRST_CHARACTERS = 80
WAITING_AFTER_S = 3.0
"""Silence after which a line with the Stop button says that the answer is being worked on."""
ACTIVITY_AFTER_S = 1.0
"""Time that tool work takes before a line about it is shown; shorter work would flicker."""
PRIVATE_INTERVAL_S = 1.0
GROUP_INTERVAL_S = 3.0
LONGEST_INTERVAL_S = 15.0
TYPING_INTERVAL_S = 4.5
DRAFT_LIFE_S = 20.0
"""Telegram discards a draft 30 s after its last update."""
LINE_LIMIT = 1500
CAPTION_LIMIT = 1024
"""UTF-16 units of a file's caption."""
MOST_MESSAGES = 4
"""Messages of an answer; a longer one is its first message and a file."""
MOST_MESSAGES_WITHOUT_FILE = 20
"""Messages of an answer in a chat that takes no file; the rest is left out, and said to be."""


@dataclass(frozen=True, slots=True)
class AnswerDisplay:
    """Display of answers while they are produced.

    Args:
        mode: `edit` a message as it grows, show a `draft` where Telegram supports it, or send everything at the end
            (`off`).
        acknowledges: whether a question in a group gets a reaction until it is answered.
    """

    mode: StreamMode
    renderer: RenderThread
    acknowledges: bool = False


class StreamedAnswer:
    """Displays one reply in one chat.

    Args:
        text: returns a line of the bot's own by its key, in the user's language.
        sends: told about each new message, before and after it is sent.
    """

    def __init__(
        self,
        *,
        delivery: Delivery,
        clock: Clock,
        reply: Reply,
        place: Place,
        keyboards: Keyboards,
        display: AnswerDisplay,
        text: Callable[[str], str],
        sends: AnswerSends | None = None,
    ) -> None:
        self._renderer = display.renderer
        self._delivery = delivery
        self._clock = clock
        self._reply = reply
        self._place = place
        self._keyboards = keyboards
        self._text = text
        self._mode: StreamMode = self._find_mode(display.mode)
        self._interval_s = GROUP_INTERVAL_S if place.is_group else PRIVATE_INTERVAL_S
        self._pages = Pages(most=MOST_MESSAGES)
        self._messages = AnswerMessages(delivery, reply, place, sends)
        self._sends = sends
        self._delivered_pages = 0
        self._muted_page = -1
        self._draft: Rendered | None = None
        self._draft_shown_at = 0.0
        self._waiting_at = clock.monotonic() + WAITING_AFTER_S
        self._is_file_delivered = False
        self.draft_id = int(clock.time() * 1000) % (2**31 - 1) + 1

    async def show(self) -> None:
        """Displays the reply until it is final and delivered.

        When cancelled, the displayed text stays; `finish` can still deliver a reply that has ended.
        """
        if self._reply.is_silent:
            return
        typing = asyncio.create_task(self._keep_typing(), name="typing")
        try:
            await self._stream()
        finally:
            typing.cancel()
            await asyncio.wait([typing])
            if not typing.cancelled() and (error := typing.exception()) is not None:
                log.error("answer.typing_failed", exc_info=error)
        await self.finish()

    async def finish(self) -> None:
        """Delivers the final state of the reply with its pictures; delivered pages stay as they are."""
        if self._messages.is_unreachable:
            return
        if not self._reply.pictures:
            await self._finish_text()
            return
        pictures = AnswerPictures(self._delivery, self._reply, self._place, self._keyboards, self._sends)
        self._messages.keep(await pictures.recover())
        if self._reply.shown.strip():
            await self._finish_text()
            await pictures.show(None)
        else:
            await pictures.show(self._keyboards.final())
            # The progress lines of the drawing.
            await self._messages.delete_after(-1)

    async def _finish_text(self) -> None:
        await self._renderer.fill(self._pages, self._reply.shown)
        if self._pages.overflows and (self._is_file_delivered or await self._deliver_file()):
            return
        index, last = await self._deliver_all_but_last()
        markup = self._keyboards.final()
        if last is not None:
            await self._messages.show_page(index, last, markup, final=True)
        else:
            index -= 1
            await self._messages.close_full_page(index, markup)
        await self._messages.delete_after(index)

    async def _deliver_file(self) -> bool:
        """Delivers an answer that is too long: its first message, and a file with all of it.

        Returns False if the chat takes no file: then the pages are to follow as messages.
        """
        if self._delivered_pages == 0:
            await self._deliver_page(self._pages.frozen[0].rendered)
        lines = [line[: CAPTION_LIMIT // 4] for line in (self._reply.notice, self._reply.footer) if line]
        caption = _append_lines(Rendered(self._text("answer-as-file")), lines)
        result = await self._messages.show_file(caption, tidy(self._reply.shown).encode(), self._keyboards.final())
        if result is SendResult.SHOWN:
            self._is_file_delivered = True
            await self._messages.delete_after(0)
            return True
        log.warning("answer.file_not_sent", chat_id=self._place.chat_id, result=result)
        self._pages = Pages(most=MOST_MESSAGES_WITHOUT_FILE)
        await self._renderer.fill(self._pages, self._reply.shown)
        self._delivered_pages = 0
        return False

    def _find_mode(self, wanted: StreamMode) -> StreamMode:
        return "edit" if wanted == "draft" and self._place.is_group else wanted

    @property
    def _is_final(self) -> bool:
        return self._reply.phase is not ReplyPhase.RUNNING

    async def _keep_typing(self) -> None:
        while not self._messages.is_unreachable:
            await self._delivery.typing(self._place.chat_id, topic_id=self._place.topic_id)
            await self._clock.sleep(TYPING_INTERVAL_S)

    async def _stream(self) -> None:
        await self._wait_for_beginning()
        # The chat's own choice is known by now.
        self._mode = self._find_mode(self._reply.stream_mode or self._mode)
        while self._mode != "off" and not self._is_final and not self._messages.is_unreachable:
            seen, activity = len(self._reply.text), self._reply.activity
            up_to_date = await self._update_chat()
            pause_s = max(self._interval_s, self._delivery.held_s(self._place.chat_id))
            await _wait_for_first(self._reply.wait_beyond(sys.maxsize), self._clock.sleep(pause_s))
            if up_to_date:
                await self._wait_for_change(seen, activity)
        await self._reply.wait_beyond(sys.maxsize)

    async def _wait_for_beginning(self) -> None:
        await _wait_for_first(self._reply.wait_beyond(FIRST_CHARACTERS - 1), self._clock.sleep(FIRST_AFTER_S))
        if not self._is_final and not self._reply.text.strip():
            await _wait_for_first(self._wait_for_text(), self._clock.sleep(self._waiting_at - self._clock.monotonic()))

    async def _wait_for_text(self) -> None:
        while not self._is_final and not self._reply.text.strip():
            await self._reply.wait_beyond(len(self._reply.text))

    async def _wait_for_change(self, seen: int, activity: str | None) -> None:
        waits = [self._reply.wait_beyond(seen), self._wait_for_activity(seen, activity)]
        if self._mode == "draft" and self._draft is not None:
            waits.append(self._clock.sleep(self._draft_shown_at + DRAFT_LIFE_S - self._clock.monotonic()))
        if self._clock.monotonic() < self._waiting_at:
            waits.append(self._clock.sleep(self._waiting_at - self._clock.monotonic()))
        await _wait_for_first(*waits)

    async def _wait_for_activity(self, seen: int, activity: str | None) -> None:
        """Waits for text, or for tool work that lasts long enough to be shown."""
        await self._reply.wait_activity(activity)
        await _wait_for_first(self._reply.wait_beyond(seen), self._clock.sleep(ACTIVITY_AFTER_S))

    async def _update_chat(self) -> bool:
        """Displays the current text. Returns whether the chat is up to date."""
        await self._renderer.fill(self._pages, self._reply.shown)
        frozen = self._pages.frozen
        if len(frozen) > self._delivered_pages:
            for page in frozen[self._delivered_pages :]:
                await self._deliver_page(page.rendered)
            return False
        live = self._compose_live()
        if live.blank:
            return True
        result = await self._show_live_page(live)
        if result is SendResult.SKIPPED:
            self._interval_s = min(2 * self._interval_s, LONGEST_INTERVAL_S)
            return False
        return True

    def _compose_live(self) -> Rendered:
        """Returns the text of the page that grows, with a line about tool work or about waiting."""
        if self._pages.overflows:
            # After the last message that is allowed, one more has the Stop button until the file takes its place.
            return Rendered(self._text("answer-goes-on"))
        live, activity = self._pages.live.rendered, self._reply.activity
        if not live.blank:
            with_activity = _append_lines(live, [activity]) if activity is not None else live
            return with_activity if with_activity.length <= MESSAGE_LIMIT else live
        if activity is not None:
            return _append_lines(None, [activity])
        if self._delivered_pages or self._clock.monotonic() < self._waiting_at:
            return live
        return _append_lines(None, [self._text("answer-waiting")])

    async def _show_live_page(self, live: Rendered) -> SendResult:
        index = self._delivered_pages
        if self._mode == "draft":
            result = await self._show_draft(live)
            if result is not SendResult.UNSUPPORTED:
                return result
            self._mode = "edit"
        if self._muted_page == index:
            return SendResult.SHOWN
        result = await self._messages.show_page(index, live, self._keyboards.live(), final=False)
        if result is SendResult.UNSUPPORTED:
            self._mode = "off"
        elif result is SendResult.GONE or (result is SendResult.UNKNOWN and not self._messages.has(index)):
            # Another attempt could add a second message, or bring back a message that a user deleted.
            self._muted_page = index
        return SendResult.SKIPPED if result is SendResult.UNKNOWN else result

    async def _show_draft(self, live: Rendered) -> SendResult:
        now = self._clock.monotonic()
        if live == self._draft and now - self._draft_shown_at < DRAFT_LIFE_S:
            return SendResult.SHOWN
        result = await self._delivery.drafts.show(
            self._place.chat_id, self.draft_id, live, topic_id=self._place.topic_id
        )
        if result is SendResult.SHOWN:
            self._draft, self._draft_shown_at = live, now
        self._messages.is_unreachable = result is SendResult.UNREACHABLE
        return result

    async def _deliver_page(self, page: Rendered) -> None:
        """Delivers a page that will not change any more."""
        await self._messages.show_page(self._delivered_pages, page, None, final=True)
        self._delivered_pages += 1

    async def _deliver_all_but_last(self) -> tuple[int, Rendered | None]:
        """Delivers all pages but the last, composes the last, and returns its index and text, if any."""
        pages = [page.rendered for page in self._pages.all[self._delivered_pages :]]
        cut = self._text("answer-too-long") if self._pages.overflows else None
        lines = [line[:LINE_LIMIT] for line in (cut, self._reply.notice, self._reply.footer) if line]
        if not pages and not self._delivered_pages:
            # No visible text at all: the notice becomes the answer.
            body = self._reply.notice or self._text("empty-answer")
            pages = [Rendered(body[:LINE_LIMIT])]
            lines = [line for line in lines if line != self._reply.notice]
        for page in pages[:-1]:
            await self._deliver_page(page)
        if not pages:
            return self._delivered_pages, _append_lines(None, lines) if lines else None
        last = _append_lines(pages[-1], lines)
        if last.length > MESSAGE_LIMIT:
            await self._deliver_page(pages[-1])
            last = _append_lines(None, lines)
        return self._delivered_pages, last


def _append_lines(rendered: Rendered | None, lines: Sequence[str]) -> Rendered:
    """Appends small print to a text, or returns it alone."""
    text = rendered.text if rendered else ""
    entities = list(rendered.entities) if rendered else []
    for line in lines:
        text = f"{text}\n\n" if text else ""
        entities.append(MessageEntity(type="italic", offset=utf16_length(text), length=utf16_length(line)))
        text += line
    return Rendered(text, tuple(entities))


async def _wait_for_first(*waits: Coroutine[object, object, None]) -> None:
    """Waits until one of the awaitables is done and cancels the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
