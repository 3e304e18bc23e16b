"""The stored state of the previous release stays readable.

`support/released_state/*.sql` are dumps of the two SQLite files as commit 452565e wrote them, with rows in every table.
"""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from pydantic_ai.messages import BinaryContent, ModelResponse, TextPart, ToolReturnPart, UserPromptPart
from sqlalchemy import func, select

from bot.telegram.jobs import RegenerateTurn, UpdateArrived, UpdateRejected
from bot.telegram.worker import parse_payload
from core.db.database import Database
from core.db.tables import Base
from core.messages import ChatKind, ConversationKey, Speaker, Surface
from services.admin.audit import Audit
from services.chat.store.conversation import TurnStatus
from services.chat.store.notes import Notes
from services.chat.store.thread_list import ThreadList
from services.chat.store.turns import TurnStore
from services.inbox.album_parts import AlbumParts
from services.inbox.dbos_queue import JobQueue
from services.inbox.dead_letters import CrashCounter, DeadLetters
from services.inbox.job import Job
from services.inbox.sent_messages import SentMessages
from services.moderation.domain.message import Author, AuthorKind, GroupMessage, MediaKind
from services.moderation.domain.policy import Plan, Sanction
from services.moderation.domain.settings import (
    AppliesTo,
    Duplicates,
    Flood,
    GroupSettings,
    LinkPolicy,
    Mode,
    Preset,
    RuleSet,
)
from services.moderation.domain.verdict import Category
from services.moderation.records.counts import Counts, DailyCounts
from services.moderation.records.groups import GroupStore
from services.moderation.records.incidents import IncidentStore
from services.moderation.records.members import ReportStatus, ReportStore, WarningLedger
from services.moderation.records.message_log import LogEntry, MessageLog
from services.moderation.records.pending import PendingMessages
from services.moderation.spam_score.scorer import ScoreStore
from services.preferences import PreferenceStore
from services.usage.ledger import UsageLedger
from services.usage.totals import UsageTotals
from tests.support.clock import ManualClock
from tests.support.inbox_harness import RecordingRunner
from tests.support.turn_store import recalled

ADDED_SINCE = {
    "api_tokens",
    "answer_votes",
    "bans",
    "broadcasts",
    "comparisons",
    "budget_days",
    "budget_holds",
    "budget_limits",
    "secret_keys",
    "config_revisions",
    "config_values",
    "languages",
    "thread_memories",
    "embedding_spaces",
    "moderation_entries",
    "moderation_newcomers",
    "pending_sends",
    "provider_figures",
    "provider_spans",
    "replicas",
    "schedules",
    "tool_calls",
    "tool_grants",
    "user_zones",
}
"""Tables that the release did not have."""
DUMPS = Path(__file__).parent / "support" / "released_state"
STORED_AT = datetime(2027, 1, 15, 8, tzinfo=UTC)
CHAT = ConversationKey(Surface.TELEGRAM, 7)
GROUP = -100
MEMBER = 9
PILLS = GroupMessage(
    group_id=GROUP,
    message_ids=(50,),
    author=Author(MEMBER, AuthorKind.USER, "Bob"),
    sent_at=STORED_AT,
    text="buy pills",
    links=("https://pills.example/",),
)
UPDATE = {
    "update_id": 2,
    "message": {
        "message_id": 12,
        "date": 1_800_000_000,
        "chat": {"id": 7, "type": "private", "first_name": "Ann"},
        "from": {"id": 7, "is_bot": False, "first_name": "Ann", "language_code": "en"},
        "text": "Hello \ud83d",
    },
}


def restore(dump: str, path: Path) -> Path:
    """Create a SQLite file from a dump."""
    with closing(sqlite3.connect(path)) as file:
        file.executescript((DUMPS / dump).read_text())
    return path


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    """The database of the previous release, opened by the current code."""
    database = Database(f"sqlite:///{restore('understudy.sql', tmp_path / 'understudy.db')}")
    await database.start()
    yield database
    await database.close()


async def test_released_state_has_rows_in_every_table(database: Database) -> None:
    """The other tests prove little about an empty table."""
    async with database.reading() as session:
        empty = [
            table.name
            for table in Base.metadata.sorted_tables
            if table.name not in ADDED_SINCE and not await session.scalar(select(func.count()).select_from(table))
        ]
    assert empty == []


async def test_threads_and_turns(database: Database, clock: ManualClock) -> None:
    listed = await ThreadList(database).page(CHAT, 10)
    assert [(each.thread.name, each.is_current) for each in listed] == [(None, True), ("Tea", False)]
    turns = TurnStore(database, clock)
    answered, replaced, latest = [await turns.turn(number) for number in (1, 2, 3)]
    assert answered is not None
    assert replaced is not None
    assert latest is not None
    assert (answered.status, answered.provider, answered.model) == (TurnStatus.COMPLETE, "a", "m")
    assert (answered.answer_ids, answered.origin, answered.speaker_id) == ((101, 102), "tg-42-000000000001", 7)
    assert answered.created_at == STORED_AT
    assert replaced.status is TurnStatus.SUPERSEDED
    assert (latest.status, latest.replaces_id, latest.thread.id) == (TurnStatus.STOPPED, replaced.id, 2)
    assert await turns.last_turn(CHAT) == latest


async def test_transcript_with_an_image_and_a_tool_call(database: Database) -> None:
    listed = await ThreadList(database).page(CHAT, 10)
    history = await recalled(database, listed[1].thread, 100_000)
    assert len(history) == 4
    prompt = history[0].parts[0]
    assert isinstance(prompt, UserPromptPart)
    words, image = prompt.content
    assert words == "What is this?"
    assert isinstance(image, BinaryContent)
    assert (image.data, image.media_type) == (b"\x89PNG", "image/png")
    result = history[2].parts[0]
    assert isinstance(result, ToolReturnPart)
    assert (result.tool_name, result.content) == ("recall", ["likes tea"])
    assert isinstance(history[3], ModelResponse)
    assert history[3].parts == [TextPart("A picture.")]
    [_, half] = await recalled(database, listed[0].thread, 100_000)
    assert half.parts == [TextPart("Half")]


async def test_notes_preferences_and_audit(database: Database, clock: ManualClock) -> None:
    assert await Notes(database, clock).recall(7, "telegram:7") == ["likes tea"]
    preferences = await PreferenceStore(database, clock).get("telegram:7")
    assert (preferences.provider, preferences.model) == ("a", "m")
    assert (preferences.footers, preferences.remote_consent) == (False, True)
    [entry] = await Audit(database, clock).recent()
    assert (entry.actor_id, entry.action, entry.target, entry.detail) == (1000, "provider.force", "a", "30m")
    assert entry.at == STORED_AT


async def test_usage(database: Database, clock: ManualClock) -> None:
    totals = UsageTotals(database, UsageLedger(database, clock), clock)
    used = await totals.of_chat("telegram:7", date(2027, 1, 1))
    assert (used.requests, used.answers, used.unpriced, used.tokens) == (1, 1, 1, 15)
    by_provider = await totals.by_provider(date(2027, 1, 1))
    assert (by_provider["a"].requests, by_provider["a"].failures, by_provider["a"].estimated) == (2, 1, 1)


async def test_album_parts(database: Database, clock: ManualClock) -> None:
    clock.shift(60)
    assert await AlbumParts(database, clock).take(7, "album", 1, "job") == ['{"update_id":1}', '{"update_id":2}']


async def test_sent_messages(database: Database, clock: ManualClock) -> None:
    """A job that the previous release interrupted does not send its first message again."""
    sent = SentMessages(database, clock)

    async def send() -> int:
        return 556

    with sent.sent_by("tg-42-000000000001"):
        assert [await sent.send_once(7, send), await sent.send_once(7, send)] == [555, 556]


async def test_crash_counts(database: Database, clock: ManualClock) -> None:
    counts = CrashCounter(database, clock)
    assert await counts.count_restart("tg-42-000000000009") == 3
    assert await counts.count_isolated("tg-42-000000000009") == 2


async def test_dead_letters(database: Database, clock: ManualClock) -> None:
    [letter] = await DeadLetters(database, clock).newest()
    assert (letter.id, letter.reason, letter.failed_at) == (1, "ValueError", STORED_AT)
    assert (letter.job.id, letter.job.lane, letter.job.priority) == ("tg-42-000000000002", "telegram:7:0", 3)
    assert parse_payload(letter.job) == UpdateArrived(update=UPDATE)


async def test_pending_jobs(tmp_path: Path) -> None:
    """Jobs of every kind that the previous release enqueued are run by the current one."""
    runner = RecordingRunner()
    payloads: dict[str, object] = {}

    async def run(job: Job) -> None:
        payloads[job.id] = parse_payload(job)
        await runner.run(job)

    path = restore("inbox.sql", tmp_path / "inbox.db")
    queue = JobQueue(sa.URL.create("sqlite", database=str(path)), "inbox-42", "local", run)
    await queue.start()
    try:
        assert await queue.table.depth() == 3
        await queue.work()
        await runner.until(lambda: len(runner.finished) == 3)
    finally:
        await queue.drain(5)
        await queue.close()
    assert payloads == {
        "tg-42-000000000002": UpdateArrived(update=UPDATE),
        "tg-42-000000000003": UpdateRejected(update={**UPDATE, "update_id": 3}, reason="queue-full"),
        "tg-42-000000000004": RegenerateTurn(
            turn=3,
            speaker=Speaker(7, "Ann", "en"),
            chat_kind=ChatKind.PRIVATE,
            reply_to=12,
            provider="b",
            only_latest=True,
        ),
    }


async def test_moderation_settings(database: Database, clock: ManualClock) -> None:
    assert await GroupStore(database, clock).get(GROUP) == GroupSettings(
        GROUP,
        Mode.ENFORCE,
        Preset.STRICT,
        "ru",
        ban_allowed=True,
        remote=True,
        cards_to=1000,
        rules=RuleSet(
            banned=("pill*",),
            links=LinkPolicy.LISTED,
            domains=("site.org",),
            forwards=AppliesTo.NOBODY,
            media=(MediaKind.STICKER,),
            flood=Flood(5, 10),
            duplicates=Duplicates(),
        ),
        house_rules="Be kind.",
        budget=100,
        report_threshold=2,
    )


async def test_moderation_incident(database: Database, clock: ManualClock) -> None:
    incident = await IncidentStore(database, clock).find_by_card(1000, 77)
    assert incident is not None
    assert (incident.sanctioned, incident.deleted, incident.is_finished) == ("done", "done", False)
    finding = incident.finding
    assert (finding.category, finding.confidence, finding.evidence) == (Category.JOB_SCAM, 97, "pills")
    assert (finding.author, finding.text) == (PILLS.author, "buy pills")
    assert finding.plan == Plan(card=True, delete=True, sanction=Sanction.MUTE)
    assert (finding.features, finding.until) == (frozenset({"link"}), STORED_AT)


async def test_moderation_records(database: Database, clock: ManualClock) -> None:
    """Processed versions, members, counts, warnings, reports and pending messages."""
    counts = DailyCounts(database, clock)
    assert await counts.total(GROUP, 1) == Counts(seen=1, judged=1, asked=1, acted=1, input_tokens=5, output_tokens=2)
    entry = LogEntry(PILLS)
    state, member = await MessageLog(database, clock, counts).open(entry)
    assert (state.is_settled, state.is_removed) == (True, True)
    assert (member.meaningful, member.first_seen) == (1, STORED_AT)
    assert await WarningLedger(database, clock).count(GROUP, MEMBER) == 1
    assert (await ReportStore(database, clock).add(GROUP, 50, 8)).status is ReportStatus.AGAIN
    clock.shift(600)
    [pending] = await PendingMessages(database, clock).take_due(8)
    assert (pending.message, pending.version, pending.since) == (PILLS, entry.version, STORED_AT)


async def test_spam_score_weights(database: Database, clock: ManualClock) -> None:
    stored = (await ScoreStore(database, clock).changes({GROUP: None}))[GROUP]
    assert stored is not None
    assert stored.weights is not None
    assert (stored.weights.columns.tolist(), stored.weights.values.tolist()) == ([5, 70], [1.5, -0.25])
    assert (stored.weights.intercept, stored.spam_count, stored.ham_count) == (0.5, 3, 2)
