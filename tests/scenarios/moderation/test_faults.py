"""What goes wrong: providers, rights, Telegram. Nobody is punished for it, and nothing is told twice."""

import math
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from core.clock import SystemClock
from core.db.moderation_tables import ModerationPendingRow
from services.moderation.records.groups import GroupStore
from tests.support.fake_llm.server import content_filter, status
from tests.support.fake_telegram.chats import Message
from tests.support.moderated_group import JOB, MEMBER, NEWCOMER, OTHER, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")
PLAIN = (
    "Ищем людей на удалённую работу! Доход от 300$ в день, без опыта, ежедневные выплаты. Пишите + в личку @easy_job"
)
"""What the local score is very sure of."""
QUESTION = "Hello everybody, how do I set up the heating?"
OUTAGE = "No AI provider can judge messages right now."
MAY_NOT_DELETE = "A message should be deleted, but the bot lacks the right"


def silence(group: ModeratedGroup) -> None:
    """Nobody judges any more."""
    for server in (group.stage.first, group.stage.second):
        server.default = status(401)


async def waiting(group: ModeratedGroup) -> int:
    """How many messages of the group wait to be judged again."""
    async with group.stage.services.infra.database.reading() as session:
        rows = await session.scalars(select(ModerationPendingRow).where(ModerationPendingRow.group_id == group.id))
        return len(rows.all())


def told(group: ModeratedGroup, words: str) -> int:
    """How often the group was told something."""
    return len([text for text in group.chat.texts() if words in text])


async def test_another_provider_judges_in_its_place(group: ModeratedGroup) -> None:
    group.stage.first.default = status(401)
    group.stage.second.script(SCAM)
    message = await group.look(JOB)
    assert message.deleted
    assert "(b · n)" in (await group.card()).text


async def test_nobody_judges_and_the_plainest_is_deleted(group: ModeratedGroup) -> None:
    """A newcomer's message with risky features that the local score is very sure of; its author is not touched."""
    silence(group)
    message = await group.look(PLAIN)
    assert message.deleted
    assert group.deeds == ["deleteMessage"]
    card = await group.card()
    assert "no AI provider was available" in card.text
    assert NEWCOMER not in group.chat.muted


@pytest.mark.parametrize(
    ("said", "by"),
    [
        # Nothing risky about it.
        (QUESTION, NEWCOMER),
        # Risky, and the score is not that sure.
        ("My job is at the casino, who else works there?", NEWCOMER),
        # The plainest, from somebody whom the group knows.
        (PLAIN, MEMBER),
    ],
)
async def test_nobody_judges_and_the_rest_waits(group: ModeratedGroup, said: str, by: int) -> None:
    silence(group)
    message = await group.look(said, by)
    assert not message.deleted
    assert (group.deeds, group.cards) == ([], [])
    assert await waiting(group) == 1


async def test_what_waits_is_judged_when_a_provider_is_back(group: ModeratedGroup) -> None:
    """One alert for all of it; and what was said does not stay behind."""
    silence(group)
    scam = await group.look("My job is at the casino, who else works there?")
    harmless = await group.look(QUESTION, OTHER)
    assert told(group, OUTAGE) == 1
    assert await waiting(group) == 2

    await group.stage.services.operators.providers.run("reset a", 1)
    group.stage.first.default = verdict("ok", 99)
    group.stage.first.script(verdict("gambling", 95, "at the casino"))
    async with group.stage.services.infra.database.session() as session:
        now = SystemClock().now() - timedelta(seconds=1)
        for message, due_at in ((scam, now - timedelta(seconds=9)), (harmless, now)):
            row = ModerationPendingRow
            mine = (row.group_id == group.id, row.message_id == message.id)
            await session.execute(update(row).where(*mine).values(due_at=due_at))
    await group.stage.until(lambda: scam.deleted)
    assert set(group.chat.muted) == {NEWCOMER}
    assert not harmless.deleted
    for _ in range(50):
        if await waiting(group) == 0:
            break
        await group.stage.quiet(0.1)
    assert await waiting(group) == 0
    assert told(group, OUTAGE) == 1


async def test_both_content_filters_refuse(group: ModeratedGroup) -> None:
    """No outage: one other candidate, then it is for a person to look at."""
    for server in (group.stage.first, group.stage.second):
        server.default = content_filter()
    message = await group.look(JOB)
    assert not message.deleted
    assert "content filter" in (await group.card()).text
    assert [len(server.requests) for server in (group.stage.first, group.stage.second)] == [1, 1]
    assert (told(group, OUTAGE), await waiting(group)) == (0, 0)


async def test_one_content_filter_refuses_and_the_other_judges(group: ModeratedGroup) -> None:
    group.stage.first.default = content_filter()
    group.stage.second.script(SCAM)
    message = await group.look(JOB)
    assert message.deleted


async def test_the_budget_of_the_day_is_used_up(group: ModeratedGroup) -> None:
    """It is told once; the local score still points at what looks bad."""
    settings = await GroupStore(group.stage.services.infra.database, SystemClock()).read(group.id)
    assert settings is not None
    await GroupStore(group.stage.services.infra.database, SystemClock()).change(settings, budget=1)
    await group.stage.quiet(1.1)
    await group.look(QUESTION)
    await group.look(f"{QUESTION} It is cold.")
    plain = await group.look(PLAIN, OTHER)
    assert len(group.stage.first.requests) == 1
    assert told(group, "Today’s budget of 1 AI judgements is used up.") == 1
    assert not plain.deleted
    assert "Please review" in (await group.card()).text


async def _scam(group: ModeratedGroup, by: int) -> Message:
    group.stage.first.script(SCAM)
    return await group.look(f"{JOB} {by}", by)


async def test_the_right_to_delete_is_missing(group: ModeratedGroup) -> None:
    """The rest is done; it is told once, however often it is missing, and again when it was there in between."""
    group.chat.bot_rights = {"can_restrict_members"}
    for by in (NEWCOMER, OTHER):
        message = await _scam(group, by)
        assert not message.deleted
        assert by in group.chat.muted
    assert told(group, MAY_NOT_DELETE) == 1
    assert all("The message could not be deleted: the bot lacks the admin right." in card.text for card in group.cards)
    group.chat.bot_rights.add("can_delete_messages")
    assert (await _scam(group, 6004)).deleted
    group.chat.bot_rights.discard("can_delete_messages")
    await _scam(group, 6005)
    assert told(group, MAY_NOT_DELETE) == 2


async def test_the_right_to_restrict_is_missing(group: ModeratedGroup) -> None:
    group.chat.bot_rights = {"can_delete_messages"}
    message = await _scam(group, NEWCOMER)
    assert message.deleted
    assert not group.chat.muted
    card = await group.card()
    assert "The author could not be restricted: the bot lacks the admin right." in card.text
    assert "muted" not in card.text.splitlines()[0]


async def test_flood_control_is_waited_out(group: ModeratedGroup) -> None:
    group.stage.telegram.fail(
        "deleteMessage", status=429, description="Too Many Requests: retry after 1", retry_after=1, chat_id=group.id
    )
    message = await _scam(group, NEWCOMER)
    assert message.deleted
    assert len(group.cards) == 1


async def test_nothing_is_done_where_nobody_knows_the_admins(group: ModeratedGroup) -> None:
    fault = group.stage.telegram.fail("getChatAdministrators", math.inf, chat_id=group.id)
    message = await group.look(JOB)
    fault.mend()
    assert not message.deleted
    assert not group.stage.first.requests


async def test_somebody_deleted_it_before(group: ModeratedGroup) -> None:
    """That is no fault; the card tells what it was."""
    group.stage.telegram.fail(
        "deleteMessage", status=400, description="Bad Request: message to delete not found", chat_id=group.id
    )
    await _scam(group, NEWCOMER)
    assert (await group.card()).text.startswith("Done: deleted the message")


async def test_a_group_that_becomes_a_supergroup_keeps_its_settings(group: ModeratedGroup) -> None:
    """Both service messages come, in either order and twice."""
    new_id = group.id - 1_000_000
    group.stage.chat(new_id).admin_ids = group.chat.admin_ids
    group.says("", extra={"migrate_to_chat_id": new_id})
    group.stage.says("", new_id, user_id=NEWCOMER, extra={"migrate_from_chat_id": group.id})
    await group.stage.until(lambda: group.stage.events("moderation.group_moved"))
    group.stage.first.script(SCAM)
    spam = group.stage.says(JOB, new_id, user_id=NEWCOMER)
    await group.stage.until(lambda: spam.deleted)
