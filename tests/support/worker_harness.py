"""A JobWorker with a real chat service, a recording dispatcher and a job list in place of the inbox."""

from collections.abc import Sequence
from pathlib import Path

from aiogram import Dispatcher, Router
from aiogram.types import CallbackQuery, Message

from bot.telegram.answers.answer_messages import SendRecovery
from bot.telegram.answers.responder import Responder
from bot.telegram.answers.streamed_message import AnswerDisplay
from bot.telegram.api.files import FileReader
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.handlers.retry import RegeneratedTurns, RegenerateQueue
from bot.telegram.handlers.schedules import ScheduledMessages
from bot.telegram.ingress.classification import create_job
from bot.telegram.jobs import Payload, UpdateArrived
from bot.telegram.markdown.pages import RenderThread
from bot.telegram.worker import JobWorker
from core.clock import SystemClock
from core.db.database import Database
from core.i18n import Texts
from services.chat.reply import ActiveReplies
from services.chat.store.conversation import Turn
from services.inbox.album_parts import AlbumParts
from services.inbox.job import Job
from services.inbox.sent_messages import FileSendJournal, SentMessages
from services.moderation.records.groups import GroupStore
from services.preferences import Languages
from services.schedule.schedules import Schedules
from tests.support.chat_harness import ChatHarness
from tests.support.fake_telegram.messages import BOT
from tests.support.fake_telegram.traffic import Traffic
from tests.support.stub_moderator import StubModerator


class JobList:
    """A job sink that keeps jobs in memory, or refuses them all while `is_full`."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.is_full = False

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        if self.is_full:
            return list(jobs)
        self.jobs += jobs
        return []


class RecordingDispatcher:
    """A dispatcher with handlers that record each call: text or data, ids of the album parts, job id."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int], str]] = []
        self.dispatcher = Dispatcher(disable_fsm=True)
        router = Router()

        @router.message()
        async def handle_message(message: Message, album: Sequence[Message], job: str) -> None:
            self.calls.append((message.text or message.caption or "", [part.message_id for part in album], job))

        @router.callback_query()
        async def handle_press(query: CallbackQuery, album: Sequence[Message], job: str) -> None:
            self.calls.append((query.data or "", [part.message_id for part in album], job))

        self.dispatcher.include_router(router)


class WorkerHarness:
    """Executes jobs as the inbox does, and holds the worker's collaborators."""

    def __init__(self, traffic: Traffic, chat: ChatHarness, database: Database) -> None:
        clock = SystemClock()
        self.chat, self.turns = chat, chat.stores.turns
        self.parts = AlbumParts(database, clock, quiet_s=0.02)
        self.handlers, self.queued, self.moderator = RecordingDispatcher(), JobList(), StubModerator()
        self.regenerate = RegenerateQueue(traffic.bot, self.queued)
        self._sent_messages = SentMessages(database, clock)
        delivery = Delivery(traffic.bot, clock, self._sent_messages)
        texts = Texts(strict=True)
        journal = FileSendJournal(Path(database.name).with_name("sends.journal"))
        recovery = SendRecovery(journal, self.turns, delivery, GroupStore(database, clock).has_cards)
        responder = Responder(
            bot=traffic.bot, files=FileReader(), chat=chat.chat, delivery=delivery, active=ActiveReplies(),
            recovery=recovery, texts=texts, clock=clock,
            display=AnswerDisplay("off", RenderThread()), providers=lambda: ["first", "second"],
        )  # fmt: skip
        scheduled = ScheduledMessages(
            schedules=Schedules(database, clock), chat=chat.chat, responder=responder, turns=self.turns,
            delivery=delivery, texts=texts, clock=clock,
        )  # fmt: skip
        self.languages = Languages(database, clock)
        self._worker = JobWorker(
            bot=traffic.bot, dispatcher=self.handlers.dispatcher, responder=responder,
            regenerated=RegeneratedTurns(self.turns, responder, texts), known=recovery.known,
            delivery=delivery, parts=self.parts, moderation=self.moderator, scheduled=scheduled,
            turns=self.turns, texts=texts, languages=self.languages,
        )  # fmt: skip

    async def handle(self, job: Job) -> None:
        """Executes a job."""
        with self._sent_messages.sent_by(job.id):
            await self._worker.handle(job)

    async def notify_failure(self, job: Job, error: Exception | None) -> None:
        """Notifies the sender of a job that was given up."""
        with self._sent_messages.sent_by(f"{job.id}!"):
            await self._worker.notify_failure(job, error)

    async def complete_turn(self, text: str) -> Turn:
        """Answers a message and returns its turn."""
        reply = await self.chat.say(text)
        assert reply.turn_id is not None
        turn = await self.turns.turn(reply.turn_id)
        assert turn is not None
        return turn


def job_of(payload: Payload, number: int = 1) -> Job:
    """Returns a job in a lane of its own."""
    return create_job(int(str(BOT["id"])), number, None, payload)


def update_job(number: int = 1, **content: object) -> Job:
    """Returns the job of an update with that content."""
    return job_of(UpdateArrived(update={"update_id": number, **content}), number)
