"""Campaigns over groups: an advert found in one group is read by the judge in the others, and convicts in none."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.moderation.case import Stage
from services.moderation.domain.incident import Resolution
from services.moderation.domain.verdict import Category
from services.moderation.signals.campaigns import CampaignMemory
from tests.support.clock import ManualClock
from tests.support.moderation_harness import GROUP, NEWCOMER, SCAM, ModerationHarness, judged

ADVERT = "Ищем людей на удалённую подработку, доход каждый день, опыт совсем не нужен, подробности в личных сообщениях"
VARIANT = "Ищем людей на удалённую подработку! Доход каждый день, опыт вообще не нужен, подробности в личные сообщения"
TALK = "Ребята, кто знает, как в нашем доме включить отопление, если в подвале опять сработал датчик и все ушли"
PLAIN_ADVERT = "Our painting school opens its doors next month, evening courses for grown people start every week"
OTHER_GROUP = -200


@pytest.fixture
def memory() -> CampaignMemory:
    return CampaignMemory(open_redis(None), "t")


@pytest.mark.parametrize(
    ("text", "is_known"),
    [
        (ADVERT, True),
        (VARIANT, True),
        (f"🔥🔥 {ADVERT.upper()} 🔥🔥", True),
        (TALK, False),
        ("Доход каждый день растёт, а опыт не нужен, чтобы это понять: смотрите график инфляции за весь год", False),
        ("ok", False),
        ("", False),
    ],
)
async def test_variants_of_an_advert_are_of_its_campaign(memory: CampaignMemory, text: str, is_known: bool) -> None:
    await memory.remember(ADVERT)
    assert await memory.is_known(text) is is_known


async def test_link_or_user_name_identifies_a_campaign(memory: CampaignMemory) -> None:
    await memory.remember("Best signals, write @earn_with_anna or https://t.me/+AbCdEfGh")
    assert await memory.is_known("hey, ask @earn_with_anna")
    assert await memory.is_known("look at this: https://t.me/+AbCdEfGh")
    assert not await memory.is_known("hey, ask @anna_from_the_library")


async def test_advert_of_few_words_is_recognised_by_its_letters(memory: CampaignMemory) -> None:
    await memory.remember("Remote work, daily payments, newcomers welcome")
    assert await memory.is_known("REMOTE WORK daily payments!!! Newcomers welcome")
    assert not await memory.is_known("Remote work, weekly payments, newcomers welcome")


async def test_everyday_phrase_is_never_remembered(memory: CampaignMemory) -> None:
    await memory.remember("Thank you so much!")
    assert not await memory.is_known("Thank you so much!")


async def test_campaign_is_forgotten_on_an_admin_s_word(memory: CampaignMemory) -> None:
    await memory.remember(ADVERT)
    await memory.forget(ADVERT)
    assert not await memory.is_known(VARIANT)


async def test_lost_redis_knows_no_campaign_and_holds_nothing_up() -> None:
    memory = CampaignMemory(Redis(host="127.0.0.1", port=1), "t")
    await memory.remember(ADVERT)
    assert not await memory.is_known(ADVERT)


async def say(harness: ModerationHarness, text: str, number: int, *, group: int, author: int) -> Stage:
    written = harness.message(text, number)
    written = replace(written, group_id=group, author=replace(written.author, id=author))
    settings = replace(harness.settings, group_id=group)
    return (await harness.pipeline.handle(written, settings)).stage


@pytest.fixture
async def warned(harness: ModerationHarness, clock: ManualClock) -> ModerationHarness:
    """Two groups: in the first an advert was found, in the second a newcomer wrote enough to be judged no more."""
    await harness.groups.change(replace(harness.settings, group_id=OTHER_GROUP))
    for number in range(1, 7):
        await say(harness, f"{TALK} {number}", number, group=OTHER_GROUP, author=NEWCOMER)
        clock.shift(60)
    harness.judge.default = SCAM
    await say(harness, PLAIN_ADVERT, 1, group=GROUP, author=8)
    harness.judge.request_count, harness.judge.default = 0, judged(Category.OK, 99)
    harness.group.actions.clear()
    return harness


async def test_moderation_judges_the_campaign_of_another_group_and_does_no_more(warned: ModerationHarness) -> None:
    assert await say(warned, f"{TALK} again", 8, group=OTHER_GROUP, author=NEWCOMER) is Stage.PASSED
    assert warned.judge.request_count == 0
    assert await say(warned, f"Hello! {PLAIN_ADVERT}", 9, group=OTHER_GROUP, author=NEWCOMER) is Stage.PASSED
    assert (warned.judge.request_count, warned.group.actions) == (1, [])


async def test_moderation_judges_the_campaign_of_a_member_who_adds_a_link(warned: ModerationHarness) -> None:
    """An account that was taken over; the link alone is no reason."""
    await warned.newcomers.trust(OTHER_GROUP, NEWCOMER)
    for number, (text, requests) in enumerate(((TALK, 0), (PLAIN_ADVERT, 1)), 8):
        await say(warned, f"{text} https://school.example", number, group=OTHER_GROUP, author=NEWCOMER)
        assert warned.judge.request_count == requests


async def test_deleted_message_that_is_no_spam_is_no_campaign(warned: ModerationHarness) -> None:
    """Other groups may like what one group deletes."""
    promotion = "Our choir sings every Thursday evening, everyone may come and listen, bring your friends and children"
    warned.judge.default = judged(Category.CHANNEL_PROMO, 95)
    assert await say(warned, promotion, 2, group=GROUP, author=9) is Stage.FOUND
    assert warned.group.action_names == ["delete"]
    warned.judge.request_count = 0
    await say(warned, f"Hello! {promotion}", 9, group=OTHER_GROUP, author=NEWCOMER)
    assert warned.judge.request_count == 0


async def test_moderation_forgets_the_campaign_after_an_undo(warned: ModerationHarness) -> None:
    incident = (await warned.incidents.list_for_message(GROUP, 1))[0]
    await warned.actions.resolve(incident, Resolution.UNDO, warned.settings, "Ann")
    await say(warned, f"Hello! {PLAIN_ADVERT}", 9, group=OTHER_GROUP, author=NEWCOMER)
    assert warned.judge.request_count == 0
