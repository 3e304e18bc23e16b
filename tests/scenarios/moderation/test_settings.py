"""How a group is set up: by command, by buttons, and what of it shows."""

import pytest

from core.clock import SystemClock
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.records.groups import GroupStore
from tests.support.bot_harness import BotHarness
from tests.support.moderated_group import ADMIN, JOB, MEMBER, NEWCOMER, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")


@pytest.fixture
def fresh(calm: BotHarness) -> ModeratedGroup:
    """A group in which nobody has switched anything on."""
    return ModeratedGroup(calm)


async def known(group: ModeratedGroup) -> GroupSettings:
    """What the database holds."""
    settings = await GroupStore(group.stage.services.infra.database, SystemClock()).read(group.id)
    assert settings is not None
    return settings


async def test_a_group_starts_in_dry_run_and_nobody_is_looked_at_before(fresh: ModeratedGroup) -> None:
    fresh.says(JOB)
    assert "in dry-run mode" in (await fresh.commands("/moderation on")).text
    await fresh.stage.quiet(1.1)
    fresh.stage.first.script(SCAM)
    message = await fresh.look(JOB)
    assert not message.deleted
    assert len(fresh.cards) == 1
    assert "acts on what it finds" in (await fresh.commands("/moderation enforce")).text
    assert (await known(fresh)).mode is Mode.ENFORCE
    # Switched on again it stays what it is.
    await fresh.commands("/moderation on")
    assert (await known(fresh)).mode is Mode.ENFORCE
    assert (await fresh.commands("/moderation off")).text == "Moderation is off."
    assert (await known(fresh)).mode is Mode.OFF


@pytest.mark.parametrize(
    ("is_admin", "rights", "needs"),
    [
        (True, {"can_delete_messages", "can_restrict_members"}, False),
        # One of the two is missing.
        (True, {"can_delete_messages"}, True),
        # It is no admin at all.
        (False, set(), True),
    ],
)
async def test_who_switches_it_on_is_told_what_the_bot_lacks(
    fresh: ModeratedGroup, rights: set[str], *, is_admin: bool, needs: bool
) -> None:
    fresh.chat.bot_rights = rights
    if not is_admin:
        fresh.chat.admin_ids.discard(fresh.stage.telegram.bot_id)
    said = (await fresh.commands("/moderation on")).text
    assert ("make the bot an admin who can delete messages and ban users" in said) is needs


@pytest.mark.parametrize(
    ("button", "line"),
    [
        ("Enforce", "Moderation: enforcing"),
        ("Strict", "Sensitivity: strict"),
        ("Automatic bans", "Automatic bans: yes"),
        ("✓ External providers", "External providers may judge: no"),
        ("ru", "Язык: ru"),
        ("Cards to me", "Cards go to: an admin, in a private chat"),
    ],
)
async def test_the_buttons_of_the_settings(fresh: ModeratedGroup, button: str, line: str) -> None:
    card = await fresh.commands("/moderation")
    assert await fresh.presses(card, button, MEMBER) == "Only admins of this group can do this."
    assert line not in card.text
    await fresh.presses(card, button)
    await fresh.shows(card, line)


async def test_cards_in_private(fresh: ModeratedGroup) -> None:
    """Only if the bot may write to that admin; where it cannot any more, the group gets them again."""
    await fresh.open()
    card = await fresh.commands("/moderation")
    fresh.stage.telegram.block(ADMIN)
    assert await fresh.presses(card, "Cards to me") == (
        "The bot cannot write to you in private. Please start a chat with it first."
    )
    private = fresh.stage.chat(ADMIN)
    private.refusal = None
    await fresh.presses(card, "Cards to me")
    await fresh.stage.quiet(1.1)
    fresh.stage.first.script(SCAM)
    await fresh.look(JOB)
    shown = await fresh.stage.until(lambda: [m for m in private.answers() if m.text.startswith("Done:")])
    assert fresh.cards == []
    assert await fresh.stage.toast(fresh.stage.presses(shown[0], "Undo", ADMIN)) == "Done."
    assert NEWCOMER not in fresh.chat.muted
    fresh.stage.telegram.block(ADMIN)
    fresh.stage.first.script(verdict("job_scam", 97, "Earn from $500 a day"))
    await fresh.look(f"{JOB} or so", NEWCOMER)
    await fresh.card()
    private.refusal = None


async def test_the_rules_by_buttons(fresh: ModeratedGroup) -> None:
    card = await fresh.commands("/moderation")
    await fresh.presses(card, "Rules")
    await fresh.stage.until(lambda: "Links: all" in card.labels)
    for pressed, label in (
        ("Links: all", "Links: not for newcomers"),
        ("Forwards: allowed", "Forwards: not for newcomers"),
        ("No media from newcomers", "✓ No media from newcomers"),
        ("✓ Flooding", "Flooding"),
        ("✓ Duplicates", "Duplicates"),
        ("✓ Mixed alphabets", "Mixed alphabets"),
    ):
        await fresh.presses(card, pressed)
        await fresh.stage.until(lambda label=label: label in card.labels)
    rules = (await known(fresh)).rules
    assert (rules.links, rules.forwards) == ("not_from_newcomers", "newcomers")
    assert (rules.flood, rules.duplicates, rules.mixed_scripts) == (None, None, False)
    await fresh.presses(card, "Back")
    await fresh.stage.until(lambda: "Rules" in card.labels)


async def test_the_rules_by_command(group: ModeratedGroup) -> None:
    """Members read them, admins change them, and they hold without any judge."""
    for command in ("/rules text Be kind.", "/rules ban casino*", "/rules domain docs.example.org"):
        assert (await group.commands(command)).text == "Saved."
    assert (await group.commands("/rules", MEMBER)).text == "Rules of this group:\nBe kind."
    shown = (await group.commands("/rules")).text
    assert "Banned words: casino*" in shown
    assert "docs.example.org" in shown
    assert "Usage: /rules text" in (await group.commands("/rules dance")).text
    await group.stage.quiet(1.1)
    message = await group.look("Who was in the ca\u200bsinos last night?", MEMBER)
    assert message.deleted
    assert not group.stage.first.requests
    assert "a rule of this group (banned: casino*)" in (await group.card()).text
    await group.commands("/rules unban casino*")
    await group.commands("/rules undomain docs.example.org")
    assert ((await known(group)).rules.banned, (await known(group)).rules.domains) == ((), ())


async def test_the_house_rules_reach_the_judge(group: ModeratedGroup) -> None:
    await group.commands("/rules text This group is about heating.")
    await group.stage.quiet(1.1)
    await group.look("Hello everybody, how do I set up the heating?")
    told = group.stage.first.requests[-1].json["messages"][-1]["content"]
    assert "This group is about heating." in told


async def test_numbers(group: ModeratedGroup) -> None:
    assert "AI judgements per day: 20" in (await group.commands("/moderation budget 20")).text
    assert "Reports that raise a card: 5" in (await group.commands("/moderation reports 5")).text
    assert (await group.commands("/moderation reports 0")).text == "Please give a number from 1 to 100."
    assert "Usage: /moderation on" in (await group.commands("/moderation dance")).text


async def test_statistics(group: ModeratedGroup) -> None:
    """What was seen, judged, asked, done and undone; and what it cost."""
    group.stage.first.script(SCAM)
    await group.look(JOB)
    await group.look("See you all tomorrow at the meeting.", MEMBER)
    await group.look("hi", 6004)
    await group.look("See you all on Sunday at the meeting.", MEMBER)
    await group.presses(await group.card(), "Undo")
    lines = (await group.commands("/moderation stats")).text.splitlines()
    assert lines[1:] == [
        "messages: 4",
        "judged: 1",
        "sent to an AI model: 1 (25%)",
        "judged late: 0",
        "acted on: 1",
        "cards only: 0",
        "undone by admins: 1",
        "tokens: 11 in, 7 out",
        "cost: $0.0000",
    ]


async def test_a_russian_group_is_spoken_to_in_russian(fresh: ModeratedGroup) -> None:
    said = await fresh.commands("/moderation on", language="ru")
    assert said.text.startswith("Модерация включена в пробном режиме")


async def test_in_private_there_is_nothing_to_moderate(calm: BotHarness) -> None:
    for command in ("/moderation", "/rules", "/spam"):
        said = calm.says(command, 7)
        answered = await calm.seen(lambda _: True, 7, after=said.id)
        assert answered.text.startswith("This command works in groups")


async def test_commands_where_moderation_is_off(fresh: ModeratedGroup) -> None:
    message = fresh.says("You are all complete idiots here.")
    said = await fresh.commands("/report", MEMBER, reply_to=message)
    assert said.text.startswith("Moderation is off in this group.")
