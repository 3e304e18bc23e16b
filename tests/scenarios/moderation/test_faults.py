"""Failures of providers, rights and Telegram: no one is sanctioned by mistake, and admins get each notice once."""

import json
import math
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from core.clock import SystemClock
from core.db.moderation_tables import ModerationPendingRow
from services.moderation.records.groups import GroupStore
from tests.support.fake_llm.server import Act, Exchange, content_filter, status
from tests.support.fake_telegram.chats import Message
from tests.support.moderated_group import JOB_SCAM, MEMBER, NEWCOMER, OTHER_NEWCOMER, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")
OBVIOUS_SPAM = (
    "Ищем людей на удалённую работу! Доход от 300$ в день, без опыта, ежедневные выплаты. Пишите + в личку @easy_job"
)
"""The local score is very confident that this is spam."""
QUESTION = "Hello everybody, how do I set up the heating?"
OUTAGE = "No AI provider can judge messages right now."
NO_DELETE_RIGHT = "A message should be deleted, but the bot lacks the right"


def fail_all_providers(group: ModeratedGroup) -> None:
    """Makes every provider reject its key."""
    for server in (group.harness.first, group.harness.second):
        server.default = status(401)


async def count_pending(group: ModeratedGroup) -> int:
    """Counts the messages of the group that wait to be judged again."""
    async with group.harness.services.infra.database.reading() as session:
        rows = await session.scalars(select(ModerationPendingRow).where(ModerationPendingRow.group_id == group.id))
        return len(rows.all())


def count_notices(group: ModeratedGroup, part: str) -> int:
    """Counts the messages in the group that contain a text."""
    return len([text for text in group.chat.texts() if part in text])


async def test_judge_fails_over_to_the_next_provider(group: ModeratedGroup) -> None:
    group.harness.first.default = status(401)
    group.harness.second.script(SCAM)
    message = await group.moderate(JOB_SCAM)
    assert message.deleted
    assert "(b · n)" in (await group.card()).text


async def test_outage_deletes_a_newcomers_obvious_spam(group: ModeratedGroup) -> None:
    """It has risky features and a very high local score; its author is not sanctioned."""
    fail_all_providers(group)
    message = await group.moderate(OBVIOUS_SPAM)
    assert message.deleted
    assert group.actions == ["deleteMessage"]
    card = await group.card()
    assert "no AI provider was available" in card.text
    assert NEWCOMER not in group.chat.muted


@pytest.mark.parametrize(
    ("text", "by"),
    [
        # No risky feature.
        (QUESTION, NEWCOMER),
        # Risky, but the score is not very high.
        ("My job is at the casino, who else works there?", NEWCOMER),
        # Obvious spam, by an established member.
        (OBVIOUS_SPAM, MEMBER),
    ],
)
async def test_outage_makes_other_messages_pending(group: ModeratedGroup, text: str, by: int) -> None:
    fail_all_providers(group)
    message = await group.moderate(text, by)
    assert not message.deleted
    assert (group.actions, group.cards) == ([], [])
    assert await count_pending(group) == 1


async def judge_by_text(exchange: Exchange) -> None:
    """Judges messages side by side, in any order."""
    is_scam = "casino" in json.dumps(exchange.request.json)
    answer = verdict("gambling", 95, "at the casino") if is_scam else verdict("ok", 99)
    await answer.play(exchange)


async def test_pending_messages_are_judged_when_a_provider_is_back(group: ModeratedGroup) -> None:
    """There is one outage notice, and the pending rows are deleted."""
    fail_all_providers(group)
    scam = await group.moderate("My job is at the casino, who else works there?")
    harmless = await group.moderate(QUESTION, OTHER_NEWCOMER)
    assert count_notices(group, OUTAGE) == 1
    assert await count_pending(group) == 2

    await group.harness.services.operators.providers.run("reset a", 1)
    group.harness.first.default = Act(judge_by_text)
    async with group.harness.services.infra.database.session() as session:
        now = SystemClock().now() - timedelta(seconds=1)
        for message, due_at in ((scam, now - timedelta(seconds=9)), (harmless, now)):
            row = ModerationPendingRow
            mine = (row.group_id == group.id, row.message_id == message.id)
            await session.execute(update(row).where(*mine).values(due_at=due_at))
    await group.harness.until(lambda: scam.deleted)
    assert set(group.chat.muted) == {NEWCOMER}
    assert not harmless.deleted
    for _ in range(50):
        if await count_pending(group) == 0:
            break
        await group.harness.quiet(0.1)
    assert await count_pending(group) == 0
    assert count_notices(group, OUTAGE) == 1


async def test_two_content_filter_refusals_post_a_card(group: ModeratedGroup) -> None:
    """A refusal is no outage: one other candidate is asked, then a person decides."""
    for server in (group.harness.first, group.harness.second):
        server.default = content_filter()
    message = await group.moderate(JOB_SCAM)
    assert not message.deleted
    assert "content filter" in (await group.card()).text
    assert [len(server.requests) for server in (group.harness.first, group.harness.second)] == [1, 1]
    assert (count_notices(group, OUTAGE), await count_pending(group)) == (0, 0)


async def test_content_filter_refusal_fails_over_once(group: ModeratedGroup) -> None:
    group.harness.first.default = content_filter()
    group.harness.second.script(SCAM)
    message = await group.moderate(JOB_SCAM)
    assert message.deleted


async def test_exhausted_budget_falls_back_to_the_local_score(group: ModeratedGroup) -> None:
    """Admins get one notice; a very high local score still posts a card."""
    settings = await GroupStore(group.harness.services.infra.database, SystemClock()).read(group.id)
    assert settings is not None
    await GroupStore(group.harness.services.infra.database, SystemClock()).change(settings, budget=1)
    await group.harness.quiet(1.1)
    await group.moderate(QUESTION)
    await group.moderate(f"{QUESTION} It is cold.")
    plain = await group.moderate(OBVIOUS_SPAM, OTHER_NEWCOMER)
    assert len(group.harness.first.requests) == 1
    assert count_notices(group, "Today’s budget of 1 AI judgements is used up.") == 1
    assert not plain.deleted
    assert "Please review" in (await group.card()).text


async def _send_scam(group: ModeratedGroup, by: int) -> Message:
    group.harness.first.script(SCAM)
    return await group.moderate(f"{JOB_SCAM} {by}", by)


async def test_missing_delete_right_is_reported_once_per_loss(group: ModeratedGroup) -> None:
    """The author is still muted; a second notice comes only after the right was there in between."""
    group.chat.bot_rights = {"can_restrict_members"}
    for by in (NEWCOMER, OTHER_NEWCOMER):
        message = await _send_scam(group, by)
        assert not message.deleted
        assert by in group.chat.muted
    assert count_notices(group, NO_DELETE_RIGHT) == 1
    assert all("The message could not be deleted: the bot lacks the admin right." in card.text for card in group.cards)
    group.chat.bot_rights.add("can_delete_messages")
    assert (await _send_scam(group, 6004)).deleted
    group.chat.bot_rights.discard("can_delete_messages")
    await _send_scam(group, 6005)
    assert count_notices(group, NO_DELETE_RIGHT) == 2


async def test_missing_restrict_right_is_shown_on_the_card(group: ModeratedGroup) -> None:
    group.chat.bot_rights = {"can_delete_messages"}
    message = await _send_scam(group, NEWCOMER)
    assert message.deleted
    assert not group.chat.muted
    card = await group.card()
    assert "The author could not be restricted: the bot lacks the admin right." in card.text
    assert "muted" not in card.text.splitlines()[0]


async def test_rate_limited_deletion_is_retried(group: ModeratedGroup) -> None:
    group.harness.telegram.fail(
        "deleteMessage", status=429, description="Too Many Requests: retry after 1", retry_after=1, chat_id=group.id
    )
    message = await _send_scam(group, NEWCOMER)
    assert message.deleted
    assert len(group.cards) == 1


async def test_unknown_admins_disable_moderation(group: ModeratedGroup) -> None:
    fault = group.harness.telegram.fail("getChatAdministrators", math.inf, chat_id=group.id)
    message = await group.moderate(JOB_SCAM)
    fault.end()
    assert not message.deleted
    assert not group.harness.first.requests


async def test_message_deleted_by_an_admin_counts_as_deleted(group: ModeratedGroup) -> None:
    group.harness.telegram.fail(
        "deleteMessage", status=400, description="Bad Request: message to delete not found", chat_id=group.id
    )
    await _send_scam(group, NEWCOMER)
    assert (await group.card()).text.startswith("Done: deleted the message")


async def test_migrated_group_keeps_its_settings(group: ModeratedGroup) -> None:
    """Telegram sends a service message in the old and in the new group."""
    new_id = group.id - 1_000_000
    group.harness.chat(new_id).admin_ids = group.chat.admin_ids
    group.send("", extra={"migrate_to_chat_id": new_id})
    group.harness.says("", new_id, user_id=NEWCOMER, extra={"migrate_from_chat_id": group.id})
    await group.harness.until(lambda: group.harness.events("moderation.group_moved"))
    group.harness.first.script(SCAM)
    spam = group.harness.says(JOB_SCAM, new_id, user_id=NEWCOMER)
    await group.harness.until(lambda: spam.deleted)
