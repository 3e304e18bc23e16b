"""Settings of a group: `/moderation`, `/rules`, their buttons, and statistics."""

import pytest

from core.clock import SystemClock
from services.admin.audit import Audit
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.records.groups import GroupStore
from tests.support.bot_harness import BotHarness
from tests.support.fake_telegram.chats import Refusal
from tests.support.moderated_group import ADMIN, JOB_SCAM, MEMBER, NEWCOMER, UNDO, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCAM = verdict("job_scam", 97, "Earn from $500 a day")


@pytest.fixture
def new_group(harness: BotHarness) -> ModeratedGroup:
    """A group where moderation was never switched on."""
    return ModeratedGroup(harness)


async def stored_settings(group: ModeratedGroup) -> GroupSettings:
    """Returns the settings in the database."""
    settings = await GroupStore(group.harness.services.infra.database, SystemClock()).read(group.id)
    assert settings is not None
    return settings


async def test_moderation_starts_in_dry_run_when_switched_on(new_group: ModeratedGroup) -> None:
    new_group.send(JOB_SCAM)
    assert "in dry-run mode" in (await new_group.command("/moderation on")).text
    await new_group.harness.quiet(1.1)
    new_group.harness.first.script(SCAM)
    message = await new_group.moderate(JOB_SCAM)
    assert not message.deleted
    assert len(new_group.cards) == 1
    assert "acts on what it finds" in (await new_group.command("/moderation enforce")).text
    assert (await stored_settings(new_group)).mode is Mode.ENFORCE
    # `on` keeps the mode of a moderated group.
    await new_group.command("/moderation on")
    assert (await stored_settings(new_group)).mode is Mode.ENFORCE
    assert (await new_group.command("/moderation off")).text == "Moderation is off."
    assert (await stored_settings(new_group)).mode is Mode.OFF


@pytest.mark.parametrize(
    ("is_admin", "rights", "needs"),
    [
        (True, {"can_delete_messages", "can_restrict_members"}, False),
        # One of the two is missing.
        (True, {"can_delete_messages"}, True),
        # The bot is not an admin.
        (False, set(), True),
    ],
)
async def test_switching_on_reports_missing_rights(
    new_group: ModeratedGroup, rights: set[str], *, is_admin: bool, needs: bool
) -> None:
    new_group.chat.bot_rights = rights
    if not is_admin:
        new_group.chat.admin_ids.discard(new_group.harness.telegram.bot_id)
    text = (await new_group.command("/moderation on")).text
    assert ("make the bot an admin who can delete messages and ban users" in text) is needs


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
async def test_settings_button_changes_its_line_for_admins_only(
    new_group: ModeratedGroup, button: str, line: str
) -> None:
    card = await new_group.command("/moderation")
    assert await new_group.press(card, button, MEMBER) == "Only admins of this group can do this."
    assert line not in card.text
    await new_group.press(card, button)
    await new_group.wait_card_text(card, line)


async def test_cards_in_private_fall_back_to_the_group(new_group: ModeratedGroup) -> None:
    """The button needs a chat between the bot and the admin; if the admin blocks the bot, the group gets the cards."""
    await new_group.open()
    card = await new_group.command("/moderation")
    new_group.harness.telegram.block(ADMIN)
    assert await new_group.press(card, "Cards to me") == (
        "The bot cannot write to you in private. Please start a chat with it first."
    )
    private = new_group.harness.chat(ADMIN)
    private.refusal = None
    await new_group.press(card, "Cards to me")
    await new_group.harness.quiet(1.1)
    new_group.harness.first.script(SCAM)
    await new_group.moderate(JOB_SCAM)
    shown = await new_group.harness.until(lambda: [m for m in private.answers() if m.text.startswith("Done:")])
    assert new_group.cards == []
    assert await new_group.harness.toast(new_group.harness.presses(shown[0], "Undo", ADMIN)) == "Done."
    assert NEWCOMER not in new_group.chat.muted
    new_group.harness.telegram.block(ADMIN)
    new_group.harness.first.script(verdict("job_scam", 97, "Earn from $500 a day"))
    await new_group.moderate(f"{JOB_SCAM} or so", NEWCOMER)
    await new_group.card()
    private.refusal = None


async def test_rule_buttons_switch_the_rules(new_group: ModeratedGroup) -> None:
    card = await new_group.command("/moderation")
    await new_group.press(card, "Rules")
    await new_group.harness.until(lambda: "Links: all" in card.labels)
    for pressed, label in (
        ("Links: all", "Links: not for newcomers"),
        ("Forwards: allowed", "Forwards: not for newcomers"),
        ("No media from newcomers", "✓ No media from newcomers"),
        ("✓ Flooding", "Flooding"),
        ("✓ Duplicates", "Duplicates"),
        ("✓ Mixed alphabets", "Mixed alphabets"),
    ):
        await new_group.press(card, pressed)
        await new_group.harness.until(lambda label=label: label in card.labels)
    rules = (await stored_settings(new_group)).rules
    assert (rules.links, rules.forwards) == ("not_from_newcomers", "newcomers")
    assert (rules.flood, rules.duplicates, rules.mixed_scripts) == (None, None, False)
    await new_group.press(card, "Back")
    await new_group.harness.until(lambda: "Rules" in card.labels)


async def test_rules_command_changes_the_rules_for_admins_and_shows_them_to_members(group: ModeratedGroup) -> None:
    """A banned term is enforced without asking a model."""
    for command in ("/rules text Be kind.", "/rules ban casino*", "/rules domain docs.example.org"):
        assert (await group.command(command)).text == "Saved."
    assert (await group.command("/rules", MEMBER)).text == "Rules of this group:\nBe kind."
    text = (await group.command("/rules")).text
    assert "Banned words: casino*" in text
    assert "docs.example.org" in text
    assert "Usage: /rules text" in (await group.command("/rules dance")).text
    await group.harness.quiet(1.1)
    message = await group.moderate("Who was in the ca\u200bsinos last night?", MEMBER)
    assert message.deleted
    assert not group.harness.first.requests
    assert "a rule of this group (banned: casino*)" in (await group.card()).text
    await group.command("/rules unban casino*")
    await group.command("/rules undomain docs.example.org")
    assert ((await stored_settings(group)).rules.banned, (await stored_settings(group)).rules.domains) == ((), ())


async def test_house_rules_are_part_of_the_judges_prompt(group: ModeratedGroup) -> None:
    await group.command("/rules text This group is about heating.")
    await group.harness.quiet(1.1)
    await group.moderate("Hello everybody, how do I set up the heating?")
    prompt = group.harness.first.requests[-1].json["messages"][-1]["content"]
    assert "This group is about heating." in prompt


async def test_numeric_settings_are_checked_against_their_range(group: ModeratedGroup) -> None:
    assert "AI judgements per day: 20" in (await group.command("/moderation budget 20")).text
    assert "Reports that raise a card: 5" in (await group.command("/moderation reports 5")).text
    assert (await group.command("/moderation reports 0")).text == "Please give a number from 1 to 100."
    assert "Usage: /moderation on" in (await group.command("/moderation dance")).text


async def test_statistics_count_messages_actions_and_cost(group: ModeratedGroup) -> None:
    group.harness.first.script(SCAM)
    await group.moderate(JOB_SCAM)
    await group.moderate("See you all tomorrow at the meeting.", MEMBER)
    await group.moderate("hi", 6004)
    await group.moderate("See you all on Sunday at the meeting.", MEMBER)
    await group.press(await group.card(), "Undo")
    lines = (await group.command("/moderation stats")).text.splitlines()
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


async def test_new_group_uses_the_language_of_its_admin(new_group: ModeratedGroup) -> None:
    reply = await new_group.command("/moderation on", language="ru")
    assert reply.text.startswith("Модерация включена в пробном режиме")


async def test_group_commands_are_rejected_in_private(harness: BotHarness) -> None:
    for command in ("/moderation", "/rules", "/spam"):
        sent = harness.says(command, 7)
        reply = await harness.seen(lambda _: True, 7, after=sent.id)
        assert reply.text.startswith("This command works in groups")


async def test_commands_report_that_moderation_is_off(new_group: ModeratedGroup) -> None:
    """Never switched on, and switched off again."""
    message = new_group.send("You are all complete idiots here.")
    for is_stored in (False, True):
        if is_stored:
            await new_group.open(Mode.OFF)
            await new_group.harness.quiet(1.1)
        for command, by in (("/report", MEMBER), ("/warn", ADMIN), ("/newcomers", ADMIN), ("/lock poll", ADMIN)):
            reply = await new_group.command(command, by, reply_to=message)
            assert reply.text.startswith("Moderation is off in this group.")


async def test_cards_go_to_an_admin_chat(group: ModeratedGroup) -> None:
    """Of which the commanding admin is one, too; its members decide only if they are admins of the moderated group."""
    office = group.harness.chat(group.id - 5_000_000)
    office.type, office.admin_ids = "supergroup", {group.harness.telegram.bot_id}
    refused = await group.command(f"/moderation cards {office.id}")
    assert refused.text == "You are not an admin of that chat."
    assert "cannot write" in (await group.command("/moderation cards @nowhere_at_all")).text
    office.admin_ids.add(ADMIN)
    assert f"Cards go to: the chat {office.id}" in (await group.command(f"/moderation cards {office.id}")).text
    assert "Moderation cards of" in office.texts()[-1]
    group.harness.first.script(verdict("job_scam", 97, "Earn from $500 a day"))
    message = await group.moderate(JOB_SCAM)
    assert message.deleted
    await group.harness.until(lambda: any("Done:" in text for text in office.texts()))
    assert not group.cards
    card = office.answers()[-1]
    assert await group.harness.toast(group.harness.presses(card, UNDO, MEMBER)) == (
        "Only admins of this group can do this."
    )
    assert await group.harness.toast(group.harness.presses(card, UNDO, ADMIN)) == "Done."
    await group.harness.until(lambda: "Undone by" in card.text)
    # A chat that the bot was removed from: the group gets the cards.
    await group.harness.quiet(1.1)
    office.refusal = Refusal(403, "Forbidden: bot was kicked from the supergroup chat")
    group.harness.first.script(verdict("gambling", 85, "the best casino"))
    await group.moderate("Come to the best casino and its daily bonus, 100 dollars for everyone", 6044)
    assert "deleted" in (await group.card()).text
    assert "this group" in (await group.command("/moderation cards here")).text
    entries = await Audit(group.harness.services.infra.database, SystemClock()).recent(10)
    acts = [(entry.action, entry.actor_id) for entry in entries if entry.target == str(group.id)]
    assert acts == [("moderation.cards", ADMIN), ("moderation.undo", ADMIN), ("moderation.cards", ADMIN)]


async def test_rules_are_shown_but_not_changed_while_telegram_does_not_say_who_is_admin(group: ModeratedGroup) -> None:
    await group.command("/rules text Be kind.")
    fault = group.harness.telegram.fail(
        "getChatMember", float("inf"), status=400, description="Bad Request: CHAT_ADMIN_REQUIRED", chat_id=group.id
    )
    assert (await group.command("/rules")).text == "Rules of this group:\nBe kind."
    assert "nothing was done" in (await group.command("/rules text Be rude.")).text
    fault.end()
    assert (await stored_settings(group)).house_rules == "Be kind."


async def test_lists_and_statistics_are_pages_of_the_settings(group: ModeratedGroup) -> None:
    await group.command("/rules ban casino*")
    card = await group.command("/moderation")
    for button, text in (
        ("Lists", "Banned words: casino*"),
        ("Back", "Sensitivity:"),
        ("Statistics", "undone by admins"),
    ):
        await group.press(card, button)
        await group.wait_card_text(card, text)


async def test_commands_decide_in_reply_to_a_card_in_an_admin_chat(harness: BotHarness) -> None:
    office = harness.chat(-7_000_001)
    office.type, office.admin_ids = "supergroup", {ADMIN, MEMBER, harness.telegram.bot_id}
    group = await ModeratedGroup(harness).open(cards_to=office.id)
    harness.first.script(verdict("job_scam", 97, "Earn from $500 a day"))
    await group.moderate(JOB_SCAM)
    await harness.until(lambda: any("Done:" in text for text in office.texts()))
    card = office.answers()[-1]
    replies: list[str] = []
    for author in (MEMBER, ADMIN, ADMIN):
        sent = harness.says("/ham", office.id, user_id=author, reply_to=card)
        replies.append((await harness.seen(lambda each, sent=sent: each.reply_to == sent.id, office.id)).text)
    assert replies == [
        "Only admins of this group can do this.", "Learned as not spam.", "This has already been handled."
    ]  # fmt: skip
    await harness.until(lambda: "Undone by" in card.text)
    entries = await Audit(harness.services.infra.database, SystemClock()).recent(5)
    assert [entry.action for entry in entries if entry.target == str(group.id)] == ["moderation.undo"]
