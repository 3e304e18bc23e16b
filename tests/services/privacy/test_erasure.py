"""`/forget`: nothing of a person is left in any table, key or file; groups keep what is theirs, without the name."""

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from redis.asyncio import Redis
from sqlalchemy import func, select

from core.db.database import Database
from core.db.moderation_tables import ModerationIncidentRow, ModerationNewcomerRow
from core.db.tables import Base, PreferenceRow, ThreadRow, TurnRow
from core.db.usage_tables import UsageDayRow, UsageRequestRow
from core.messages import Surface
from services.inbox.dbos_queue import JobQueue
from services.inbox.job import Job
from services.moderation.newcomers.store import NewcomerStore, Passage
from services.moderation.records.members import WarningLedger
from services.privacy.erasure import Eraser
from services.privacy.redaction import ERASED_PAYLOAD
from services.privacy.registry import TABLES, Impersonal
from services.pseudonyms import Pseudonyms, load_pseudonyms
from services.usage.ledger import UsageLedger
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration

ANN, BOB, GROUP = 700_123_001, 700_123_002, -100_555
NAMES = ["Ann Marie", "Ann", "@ann_marie"]
SECRET = "My bank card ends with 4711"
NUMBERED = frozenset(name for name, table in Base.metadata.tables.items() if "id" in table.columns)
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
USER = {"id": ANN, "is_bot": False, "first_name": "Ann", "last_name": "Marie"}
OTHER = {"id": BOB, "is_bot": False, "first_name": "Bob"}


def prompt(text: str) -> list[dict[str, Any]]:
    return [{"parts": [{"content": text, "part_kind": "user-prompt"}], "kind": "request"}]


def update_by(user: dict[str, Any], chat_id: int, text: str, **fields: Any) -> dict[str, Any]:
    chat = {"id": chat_id, "type": "private" if chat_id > 0 else "supergroup"}
    message = {"message_id": 5, "date": int(NOW.timestamp()) - 60, "chat": chat, "from": user, "text": text, **fields}
    return {"update_id": 9, "message": message}


def default(column: sa.Column[Any]) -> Any:
    """A value of the type of a column that says nothing about anyone."""
    kind = column.type.impl if isinstance(column.type, sa.TypeDecorator) else column.type
    return {int: 1, bool: False, datetime: NOW, date: NOW.date(), bytes: b"x"}.get(kind.python_type, "x")


async def put(database: Database, table: str, **values: Any) -> None:
    """Inserts a row; columns that are not given get a value that says nothing."""
    found = Base.metadata.tables[table]
    blank = {c.name: default(c) for c in found.columns if not c.nullable and c.name not in values}
    if table in NUMBERED:
        blank.pop("id", None)
    async with database.session() as session:
        await session.execute(found.insert().values({**blank, **values}))


async def fill(database: Database, pseudonyms: Pseudonyms) -> None:
    """Stores something about Ann in every table that holds data of people, and something of Bob beside it."""
    private, group = f"telegram:{ANN}", f"telegram:{GROUP}"
    own = [*prompt(SECRET), {"parts": [{"content": "Noted, Ann.", "part_kind": "text"}], "kind": "response"}]
    said = f"Ann Marie: {SECRET.replace('4711', '4712')}"
    tool = {
        "part_kind": "tool-call",
        "tool_name": "remember",
        "args": json.dumps({"note": SECRET}),
        "tool_call_id": "1",
    }
    answer = {"parts": [tool, {"content": "Hello Ann, @ann_marie!", "part_kind": "text"}], "kind": "response"}
    quoted = "[In reply to this message of Ann Marie:]\n hi\n[The message itself:]\nBob: Will Ann Marie come?"
    rows: list[tuple[str, dict[str, Any]]] = [
        (
            "threads",
            {"id": 1, "surface": "telegram", "chat_id": ANN, "topic_id": 0, "name": SECRET, "is_current": True},
        ),
        (
            "threads",
            {
                "id": 2,
                "surface": "telegram",
                "chat_id": GROUP,
                "topic_id": 0,
                "name": "Ann Marie asks",
                "is_current": True,
            },
        ),
        (
            "turns",
            {
                "id": 1,
                "thread_id": 1,
                "speaker_id": ANN,
                "prompt": json.dumps(prompt(SECRET)),
                "messages": json.dumps(own),
            },
        ),
        (
            "turns",
            {
                "id": 2,
                "thread_id": 2,
                "speaker_id": ANN,
                "prompt": json.dumps(prompt(said)),
                "messages": json.dumps([*prompt(said), answer]),
            },
        ),
        ("turns", {"id": 3, "thread_id": 2, "speaker_id": BOB, "prompt": json.dumps(prompt(quoted)), "messages": None}),
        ("thread_memories", {"thread_id": 1, "summary": SECRET}),
        ("thread_memories", {"thread_id": 2, "summary": "Ann Marie and Bob met."}),
        ("attachments", {"turn_id": 1, "digest": "d", "data": SECRET.encode()}),
        ("attachments", {"turn_id": 2, "digest": "d", "data": SECRET.encode()}),
        ("answer_messages", {"surface": "telegram", "chat_id": ANN, "message_id": 3, "turn_id": 1}),
        ("pending_sends", {"turn_id": 1}),
        ("notes", {"user_id": ANN, "scope": group, "text": SECRET}),
        ("notes", {"user_id": BOB, "scope": group, "text": "Bob likes tea"}),
        ("schedules", {"surface": "telegram", "user_id": ANN, "chat_id": GROUP, "user_name": "Ann", "text": SECRET}),
        ("user_zones", {"user": private}),
        ("languages", {"owner": private}),
        ("tool_calls", {"key": "k", "surface": "telegram", "user_id": ANN, "chat_id": GROUP, "arguments": SECRET}),
        ("tool_grants", {"user": private}),
        ("preferences", {"scope": private}),
        ("preferences", {"scope": group}),
        ("usage_requests", {"id": "1", "speaker": private, "chat": private}),
        ("usage_requests", {"id": "2", "speaker": private, "chat": group}),
        ("usage_days", {"speaker": private, "chat": private, "requests": 2}),
        ("usage_days", {"speaker": private, "chat": group, "requests": 3}),
        ("usage_days", {"speaker": "", "chat": group, "requests": 4}),
        ("budget_limits", {"scope": f"user:{pseudonyms.of(private)}", "label": f"user:{private}"}),
        ("said", {"job_id": "j", "chat_id": ANN}),
        ("album_parts", {"chat_id": ANN, "update": json.dumps(update_by(USER, ANN, SECRET))}),
        (
            "dead_letters",
            {"job_id": "1", "payload": json.dumps({"kind": "update", "update": update_by(USER, GROUP, SECRET)})},
        ),
        (
            "dead_letters",
            {
                "job_id": "2",
                "payload": json.dumps(
                    {
                        "kind": "update",
                        "update": update_by(
                            OTHER, GROUP, "Bob asks", reply_to_message=update_by(USER, GROUP, SECRET)["message"]
                        ),
                    }
                ),
            },
        ),
        ("audit", {"actor_id": ANN, "action": "provider.force", "target": "a", "detail": "for Ann Marie"}),
        ("audit", {"actor_id": 1000, "action": "budget.set", "target": f"user {ANN}", "detail": "5"}),
        ("bans", {"person": pseudonyms.of(private), "label": private, "reason": "Ann Marie insults"}),
        ("bans", {"person": "2", "label": "telegram:9", "banned_by": ANN}),
        ("broadcasts", {"actor_id": ANN, "card_chat_id": ANN, "card_message_id": 1}),
        ("broadcasts", {"actor_id": 1000, "last_chat_id": ANN}),
        ("api_tokens", {"created_by": ANN}),
        ("config_revisions", {"actor_id": ANN}),
        ("moderation_groups", {"group_id": GROUP, "cards_to": ANN}),
        ("moderation_members", {"group_id": GROUP, "member_id": ANN}),
        ("moderation_messages", {"group_id": GROUP, "author_id": ANN, "message_id": 8}),
        (
            "moderation_incidents",
            {
                "group_id": GROUP,
                "author_id": ANN,
                "author_name": "Ann Marie",
                "text": SECRET,
                "evidence": SECRET,
                "message_id": 8,
                "card_chat_id": ANN,
                "card_message_id": 1,
            },
        ),
        (
            "moderation_incidents",
            {"group_id": GROUP, "author_id": BOB, "author_name": "Bob", "message_id": 9, "confirmed_by": "Ann Marie"},
        ),
        ("moderation_warnings", {"group_id": GROUP, "member_id": ANN, "source": "s", "at": NOW}),
        ("moderation_reports", {"group_id": GROUP, "reporter_id": ANN}),
        ("moderation_entries", {"group_id": GROUP, "card_chat_id": ANN, "card_message_id": 1}),
        ("moderation_newcomers", {"group_id": GROUP, "member_id": ANN, "trust": "none", "passage": "waiting"}),
    ]
    for table, values in rows:
        await put(database, table, **values)
    filled = {table for table, _ in rows}
    # A message that waits for a verdict keeps the number, for a day at most: the test below has it apart.
    for table, rules in TABLES.items():
        is_personal = any(not isinstance(rule, Impersonal) for rule in rules)
        assert table in filled or table == "moderation_pending" or not is_personal, f"{table} has no row in this test"


async def all_texts(database: Database) -> dict[str, str]:
    """Every row of every table as text."""
    async with database.reading() as session:
        return {
            name: repr([tuple(row) for row in await session.execute(table.select())])
            for name, table in Base.metadata.tables.items()
        }


@pytest.fixture
async def pseudonyms(file: Database) -> Pseudonyms:
    return await load_pseudonyms(file)


@pytest.fixture
async def eraser(file: Database, embedded_redis: Redis, pseudonyms: Pseudonyms, clock: ManualClock) -> Any:
    ledger = UsageLedger(file, clock)
    eraser = Eraser(file, embedded_redis, "bot", ledger, pseudonyms, clock)
    yield eraser
    await eraser.aclose()


async def test_erase_leaves_nothing_of_a_person_in_any_table(
    file: Database, eraser: Eraser, pseudonyms: Pseudonyms, tmp_path: Path
) -> None:
    await fill(file, pseudonyms)
    for _ in range(2):  # a repeated job erases again
        await eraser.erase(Surface.TELEGRAM, ANN, NAMES)
    for name, text in (await all_texts(file)).items():
        for word in (str(ANN), "Ann", "ann_marie", SECRET):
            assert word not in text, f"{name} holds {word!r}"
    # Nor in free pages, nor in the write-ahead log.
    for path in (tmp_path / "data").iterdir():
        for word in (str(ANN).encode(), SECRET.encode(), b"Ann Marie"):
            assert word not in path.read_bytes(), f"{path.name} holds {word!r}"


async def test_erase_leaves_groups_and_others_what_is_theirs(
    file: Database, eraser: Eraser, pseudonyms: Pseudonyms
) -> None:
    await fill(file, pseudonyms)
    await eraser.erase(Surface.TELEGRAM, ANN, NAMES)
    async with file.reading() as session:
        turns = {turn.id: turn for turn in await session.scalars(select(TurnRow))}
        assert set(turns) == {2, 3}
        assert turns[2].speaker_id == GROUP
        assert "someone: My bank card ends with 4712" in turns[2].prompt
        assert "Hello someone, someone!" in (turns[2].messages or "")
        assert '"tool_name":"remember"' in (turns[2].messages or "")
        assert turns[3].speaker_id == BOB
        assert "message of someone:]" in turns[3].prompt
        assert "Bob: Will" in turns[3].prompt
        assert list(await session.scalars(select(ThreadRow.name))) == ["someone asks"]
        assert list(await session.scalars(select(PreferenceRow.scope))) == [f"telegram:{GROUP}"]
        # The operator's sums are those of before.
        assert await session.scalar(select(func.sum(UsageDayRow.requests))) == 9
        assert await session.scalar(select(func.count()).select_from(UsageRequestRow)) == 2
        incidents = list(await session.scalars(select(ModerationIncidentRow).order_by(ModerationIncidentRow.id)))
        assert [(each.author_name, each.text, each.confirmed_by) for each in incidents] == [
            ("someone", None, None),
            ("Bob", None, "someone"),
        ]
    texts = await all_texts(file)
    assert "Bob likes tea" in texts["notes"]
    assert "Bob asks" in texts["dead_letters"]


async def test_erase_keeps_warnings_and_the_gate_under_an_alias(
    file: Database, eraser: Eraser, pseudonyms: Pseudonyms, clock: ManualClock
) -> None:
    """No one gets rid of a sanction by forgetting."""
    ledger, newcomers = WarningLedger(file, clock, pseudonyms), NewcomerStore(file, clock, pseudonyms)
    await ledger.warn(GROUP, ANN, "first")
    await newcomers.put(GROUP, ANN, passage=Passage.WAITING.value)
    await eraser.erase(Surface.TELEGRAM, ANN, NAMES)
    async with file.reading() as session:
        assert await session.get(ModerationNewcomerRow, (GROUP, ANN)) is None
    assert await ledger.count(GROUP, ANN) == 1
    assert await ledger.warn(GROUP, ANN, "second") == 2
    found = await newcomers.find(GROUP, ANN)
    assert found is not None
    assert found.passage is Passage.WAITING
    assert await newcomers.take_passage(GROUP, ANN) is Passage.WAITING
    assert await ledger.count(GROUP, BOB) == 0


async def test_erase_takes_the_name_out_of_a_message_that_waits_for_a_verdict(file: Database, eraser: Eraser) -> None:
    payload = json.dumps({"group_id": GROUP, "author": {"id": ANN, "name": "Ann Marie"}, "text": "buy"})
    await put(file, "moderation_pending", group_id=GROUP, payload=payload)
    await eraser.erase(Surface.TELEGRAM, ANN, NAMES)
    text = (await all_texts(file))["moderation_pending"]
    assert "Ann" not in text
    assert "buy" in text


async def test_erase_deletes_redis_keys_of_a_person_only(file: Database, eraser: Eraser, embedded_redis: Redis) -> None:
    own = [
        f"bot:{{limits}}:rate:message:user:{ANN}", f"bot:{{limits}}:running:user:{ANN}",
        f"bot:{{llm}}:stay:telegram:{ANN}", f"bot:stand-in:telegram:{ANN}:ollama:0.000",
        f"bot:mod:{{{GROUP}}}:budget:2026-11-28:{ANN}", f"bot:mod:{{{GROUP}}}:verdict:ab:{ANN}",
        f"bot:{{group:{GROUP}}}:from:{ANN}",
    ]  # fmt: skip
    others = [
        f"bot:{{limits}}:rate:message:user:{ANN}9", f"bot:{{llm}}:stay:telegram:-{ANN}", "bot:{llm}:routing",
        f"other:{{llm}}:stay:telegram:{ANN}",
    ]  # fmt: skip
    for key in (*own, *others):
        await embedded_redis.set(key, "1")
    same = f"bot:{{group:{GROUP}}}:same:ab"
    await embedded_redis.zadd(same, {f"{ANN}:5": 1.0, f"{BOB}:6": 2.0})
    await embedded_redis.set("bot:console:session:aa", json.dumps({"actor": ANN}))
    await embedded_redis.set("bot:console:session:bb", json.dumps({"actor": BOB}))
    await eraser.erase(Surface.TELEGRAM, ANN, NAMES)
    assert sorted(await embedded_redis.keys("*")) == sorted([*others, same, "bot:console:session:bb"])
    assert await embedded_redis.zrange(same, 0, -1) == [f"{BOB}:6"]


async def test_erase_empties_jobs_and_keeps_their_ids(
    file: Database, embedded_redis: Redis, pseudonyms: Pseudonyms, clock: ManualClock, tmp_path: Path
) -> None:
    """An update that Telegram repeats must still be recognised; of another's message only the quotation goes."""
    path = tmp_path / "data" / "inbox.db"

    async def run(_job: Job) -> None:
        """Unused: nothing is worked on."""

    queue = JobQueue(sa.URL.create("sqlite", database=str(path)), "inbox-1", "local", run)
    await queue.start()
    eraser = Eraser(file, embedded_redis, "bot", UsageLedger(file, clock), pseudonyms, clock, queue.table)
    now_s = int(clock.time())
    reply = update_by(USER, GROUP, SECRET)["message"]
    later = update_by(USER, ANN, "written afterwards", date=now_s + 60)
    updates = [update_by(USER, ANN, SECRET), update_by(OTHER, GROUP, "Bob asks", reply_to_message=reply), later]
    jobs = [
        Job(
            f"tg-1-{number}",
            f"telegram:{ANN if number != 1 else BOB}:0",
            1,
            json.dumps({"kind": "update", "update": each}),
        )
        for number, each in enumerate(updates)
    ]
    await queue.put(jobs)
    await eraser.erase(Surface.TELEGRAM, ANN, NAMES)
    assert (await queue.put(jobs)).new == frozenset()
    with sa.create_engine(f"sqlite:///{path}").connect() as connection:
        inputs = connection.execute(sa.text("SELECT inputs FROM workflow_input ORDER BY workflow_uuid")).scalars().all()
    stored = [json.loads(each)["positionalArgs"] for each in inputs]
    assert stored[0] == ["erased", 1, ERASED_PAYLOAD]
    assert "Bob asks" in stored[1][2]
    assert SECRET not in stored[1][2]
    assert "written afterwards" in stored[2][2]
    assert SECRET.encode() not in path.read_bytes()
    await eraser.aclose()
    await queue.close()


async def test_erase_takes_late_records_too(file: Database, eraser: Eraser, clock: ManualClock) -> None:
    """An answer that was ending at that moment writes its usage afterwards."""
    await eraser.erase(Surface.TELEGRAM, ANN, NAMES)
    await put(file, "usage_requests", id="late", speaker=f"telegram:{ANN}")
    await put(file, "said", job_id="forget", chat_id=ANN)
    await eraser.aclose()
    texts = await all_texts(file)
    assert str(ANN) not in texts["usage_requests"]
    assert str(ANN) not in texts["said"]


async def test_erase_of_the_console_spares_telegram(file: Database, eraser: Eraser) -> None:
    await put(file, "notes", user_id=0, scope="console:0", text="x")
    await put(file, "threads", surface="console", chat_id=0, topic_id=0, is_current=True)
    await put(file, "threads", surface="telegram", chat_id=ANN, topic_id=0, is_current=True)
    await put(file, "audit", actor_id=0, detail="0 of 5")
    await eraser.erase(Surface.CONSOLE, 0, [])
    texts = await all_texts(file)
    assert texts["notes"] == "[]"
    assert "console" not in texts["threads"]
    assert str(ANN) in texts["threads"]
    assert "0 of 5" in texts["audit"]


def test_pseudonym_numbers_are_larger_than_ids() -> None:
    names = Pseudonyms(b"k")
    assert 2**62 <= names.number("telegram:7") < 2**63
    assert names.number("telegram:7") != names.number("telegram:8")
