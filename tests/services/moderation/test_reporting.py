"""Reports: one card per author and campaign, paced, after deletions; decisions hold for all incidents of a card."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from services.moderation.domain.incident import Incident, Resolution
from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.domain.policy import MUTE
from services.moderation.domain.ports import CardLocation, Restriction
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Category
from services.moderation.records.shared_cards import Campaign
from services.moderation.reporting import ReportTiming
from tests.support.clock import ManualClock, until
from tests.support.moderation_harness import GROUP, NEWCOMER, SCAM, ModerationHarness, judged

pytestmark = pytest.mark.integration

ADVERT = "Easy money from home, 500 dollars a day, write to @easy_money_now"


def advert(harness: ModerationHarness, number: int, author_id: int, text: str = ADVERT) -> GroupMessage:
    author = Author(author_id, AuthorKind.USER, f"Member {author_id}")
    return replace(harness.message(text, number), author=author)


async def last_card(harness: ModerationHarness) -> Incident:
    """Returns the latest state of the only card."""
    assert len(harness.group.cards) == 1
    return (harness.group.refreshed or harness.group.cards)[-1]


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        # Digits, symbols and emoji vary.
        ("Earn 500 a day!", "🔥 Earn 750 a day 🔥", True),
        # The same contact in other words.
        ("Work with us, @easy_boss", "New places are open. @easy_boss waits for you", True),
        ("Join t.me/+abcdef now", "Best signals here: t.me/+abcdef", True),
        # A word more or less.
        (
            "Remote job for students with daily payments and no experience",
            "Remote job for students with daily payments and little experience needed",
            True,
        ),
        # Latin letters for Cyrillic ones.
        ("Зapaботок без вложений каждый день", "Заработок без вложений каждый день", True),
        ("Remote job for students with daily payments", "The best casino in town opens its doors tonight", False),
        # Too short to tell.
        ("ok", "ok", False),
        ("", "", False),
    ],
)
def test_campaign_recognises_variants(first: str, second: str, *, is_same: bool) -> None:
    assert Campaign.of_text(first).is_same(Campaign.of_text(second)) is is_same


async def test_adverts_of_one_author_are_one_card_and_one_mute(harness: ModerationHarness, clock: ManualClock) -> None:
    harness.judge.default = SCAM
    for number in range(1, 41):
        clock.shift(1)
        text = f"{ADVERT} {number}" if number % 2 else f"Another text without anything in common, no. {number}"
        await harness.pipeline.handle(advert(harness, number, NEWCOMER, text), harness.settings)
    assert harness.group.action_names.count("mute") == 1
    assert harness.group.action_names.count("delete") == 40
    tally = (await last_card(harness)).tally
    assert (tally.messages, tally.authors, tally.restricted) == (40, 1, 1)
    assert (await harness.counts.total(GROUP, 1)).acted == 40


async def test_campaign_of_many_authors_is_one_card(harness: ModerationHarness, other: ModerationHarness) -> None:
    """Over two replicas, and at the same time."""
    harness.judge.default = SCAM
    replicas = (harness, other)
    messages = [advert(harness, number, 7000 + number, f"{ADVERT} {number * '!'}") for number in range(1, 21)]
    for pair in zip(messages[::2], messages[1::2], strict=True):
        await asyncio.gather(
            *(each.pipeline.handle(one, each.settings) for each, one in zip(replicas, pair, strict=True))
        )
    await asyncio.gather(*(each.reporter.flush() for each in replicas))
    tally = (await last_card(harness)).tally
    assert (tally.messages, tally.authors, tally.restricted) == (20, 20, 20)


async def test_two_campaigns_are_two_cards(harness: ModerationHarness) -> None:
    harness.judge.default = SCAM
    for number in range(1, 9):
        text = ADVERT if number % 2 else "The best casino in town opens its doors tonight, come and see"
        await harness.pipeline.handle(advert(harness, number, 7000 + number, text), harness.settings)
    assert len(harness.group.cards) == 2


async def test_card_joins_end_after_a_pause_and_after_a_decision(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    harness.judge.default = SCAM
    await harness.pipeline.handle(advert(harness, 1, NEWCOMER), harness.settings)
    clock.shift(timedelta(minutes=11).total_seconds())
    await harness.pipeline.handle(advert(harness, 2, NEWCOMER), harness.settings)
    assert len(harness.group.cards) == 2
    await harness.actions.resolve(harness.group.cards[1], Resolution.CONFIRM, harness.settings, "Ann")
    await harness.pipeline.handle(advert(harness, 3, 7001), harness.settings)
    assert len(harness.group.cards) == 3


async def test_undo_of_a_shared_card_frees_all_its_authors(harness: ModerationHarness) -> None:
    harness.judge.default = SCAM
    for number in range(1, 5):
        await harness.pipeline.handle(advert(harness, number, 7000 + number % 2), harness.settings)
    card = harness.group.cards[0]
    await harness.actions.resolve(card, Resolution.UNDO, harness.settings, "Ann")
    assert sorted(action[1] for action in harness.group.actions if action[0] == "unmute") == [7000, 7001]
    assert (await last_card(harness)).undone_by == "Ann"


async def test_ban_of_a_shared_card_bans_each_author_once_and_no_admin(harness: ModerationHarness) -> None:
    harness.judge.default = SCAM
    for number in range(1, 7):
        await harness.pipeline.handle(advert(harness, number, 7000 + number % 3), harness.settings)
    harness.group.admins = replace(harness.group.admins, user_ids=frozenset({7002}))
    await harness.actions.resolve(harness.group.cards[0], Resolution.BAN, harness.settings, "Ann")
    assert sorted(action[1] for action in harness.group.actions if action[0] == "ban") == [7000, 7001]


async def test_confirm_of_a_shared_card_for_review_deletes_all_its_messages(harness: ModerationHarness) -> None:
    harness.judge.default = judged(Category.JOB_SCAM, 60)
    for number in range(1, 4):
        await harness.pipeline.handle(advert(harness, number, 7000 + number), harness.settings)
    await harness.actions.resolve(harness.group.cards[0], Resolution.CONFIRM, harness.settings, "Ann")
    assert sorted(action[1] for action in harness.group.actions) == [(1,), (2,), (3,)]


async def test_shared_card_shows_distinct_texts(harness: ModerationHarness) -> None:
    harness.judge.default = judged(Category.JOB_SCAM, 60)
    for number, text in enumerate((ADVERT, ADVERT, "Something else, of the same author"), start=1):
        await harness.pipeline.handle(advert(harness, number, NEWCOMER, text), harness.settings)
    assert (await last_card(harness)).tally.texts == ("Something else, of the same author",)


# Undo takes back only what the bot did.


async def mute_and_undo(harness: ModerationHarness, now: Restriction | None) -> list[str]:
    """Mutes the newcomer by a verdict, sets what Telegram says of them then, and undoes; returns the actions."""
    harness.judge.default = SCAM
    await harness.pipeline.handle(harness.message(), harness.settings)
    if now is not None:
        harness.group.restrictions[NEWCOMER] = now
    await harness.actions.resolve(harness.group.cards[0], Resolution.UNDO, harness.settings, "Ann")
    return harness.group.action_names


async def test_undo_leaves_an_admins_mute_from_before(harness: ModerationHarness) -> None:
    """The bot does not shorten a mute for good either."""
    harness.group.restrictions[NEWCOMER] = Restriction()
    assert await mute_and_undo(harness, None) == ["delete"]


async def test_undo_restores_an_admins_restriction_from_before(harness: ModerationHarness, clock: ManualClock) -> None:
    before = Restriction(permissions=frozenset({"can_send_messages"}))
    harness.group.restrictions[NEWCOMER] = before
    own = Restriction(until=clock.now() + MUTE)
    assert await mute_and_undo(harness, own) == ["mute", "delete", "unmute"]
    assert harness.group.actions[-1] == ("unmute", NEWCOMER, before)


@pytest.mark.parametrize("since", [Restriction(), Restriction(is_ban=True)])
async def test_undo_leaves_an_admins_act_since_then(harness: ModerationHarness, since: Restriction) -> None:
    assert await mute_and_undo(harness, since) == ["mute", "delete"]


async def test_undo_after_a_failed_mute_lifts_nothing(harness: ModerationHarness) -> None:
    """The author turned out to be an admin."""
    harness.group.admins = replace(harness.group.admins, user_ids=frozenset())
    harness.judge.default = SCAM
    await harness.pipeline.handle(harness.message(), harness.settings)
    harness.group.actions.clear()
    incident = harness.group.cards[0]
    await harness.incidents.save_progress(incident.id, sanctioned="no_right")
    await harness.actions.resolve(incident, Resolution.UNDO, harness.settings, "Ann")
    assert harness.group.action_names == []


async def test_undo_of_a_ban_leaves_a_ban_from_before(harness: ModerationHarness) -> None:
    harness.judge.default = judged(Category.JOB_SCAM, 85)
    await harness.pipeline.handle(harness.message(), harness.settings)
    harness.group.restrictions[NEWCOMER] = Restriction(is_ban=True)
    for resolution in (Resolution.BAN, Resolution.UNDO):
        await harness.actions.resolve(harness.group.cards[0], resolution, harness.settings, "Ann")
    assert harness.group.action_names == ["delete"]


# Pace.


async def test_reporter_keeps_below_telegrams_pace_and_groups_apart(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    """60 notices in one group take minutes; a notice in another one goes out at once."""
    sent: list[tuple[int, float]] = []

    async def alert(settings: GroupSettings, _key: str) -> None:
        sent.append((settings.group_id, clock.monotonic()))

    harness.group.alert = alert
    reporter = harness.reporter
    running = asyncio.create_task(reporter.run())
    started = clock.monotonic()
    for _ in range(60):
        reporter.put_alert(harness.settings, "x")
    for second in range(400):
        if second == 10:
            reporter.put_alert(replace(harness.settings, group_id=-200), "x")
        # The settings are read from the database, in real time.
        await asyncio.sleep(0.005)
        await clock.advance(1)
    assert [group_id for group_id, at in sent if at > started + 9].index(-200) < 4
    times = [at for group_id, at in sent if group_id == GROUP]
    assert len(times) == 60
    assert max(sum(at <= other < at + 60 for other in times) for at in times) <= 19
    assert times[ReportTiming().burst - 1] <= started + 2
    running.cancel()


async def test_deletion_does_not_wait_for_cards(harness: ModerationHarness) -> None:
    """The pipeline is done while the card of the incident is still being sent."""
    harness.judge.default = SCAM
    sending = asyncio.Event()

    async def show(incident: Incident, settings: GroupSettings) -> CardLocation | None:
        await sending.wait()
        harness.group.cards.append(incident)
        return CardLocation(GROUP, 1)

    harness.group.show = show
    running = asyncio.create_task(harness.reporter.run())
    pipeline = harness.pipeline._part
    for number in range(1, 4):
        async with asyncio.timeout(10):
            await pipeline.handle(advert(harness, number, 7000 + number), harness.settings)
    assert harness.group.action_names.count("delete") == 3
    assert harness.group.cards == []
    sending.set()
    await until(lambda: bool(harness.group.cards))
    await harness.reporter.flush()
    assert len(harness.group.cards) == 1
    running.cancel()
