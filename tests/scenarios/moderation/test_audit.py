"""Acts of admins in the audit log: each one carried out is recorded once, with its actor and its group."""

import pytest

from core.clock import SystemClock
from services.admin.audit import Audit, AuditDetail, AuditEntry
from tests.support.fake_telegram.chats import Message
from tests.support.moderated_group import ADMIN, ANONYMOUS, JOB_SCAM, MEMBER, UNDO, ModeratedGroup, verdict

pytestmark = pytest.mark.asyncio(loop_scope="session")

Acts = list[tuple[str, AuditDetail | str | None]]


async def read_acts(group: ModeratedGroup) -> Acts:
    """Returns the acts in the group with their details, the oldest first, after checking their author."""
    entries: list[AuditEntry] = await Audit(group.harness.services.infra.database, SystemClock()).recent(50)
    mine = [entry for entry in reversed(entries) if entry.target == str(group.id)]
    assert {entry.actor_id for entry in mine} <= {ADMIN}
    return [(entry.action.removeprefix("moderation."), entry.detail) for entry in mine]


async def assert_recorded(group: ModeratedGroup, *acts: tuple[str, AuditDetail | str]) -> None:
    """Waits for the record of the last act, which may follow the reply."""
    for _ in range(100):
        if len(await read_acts(group)) >= len(acts):
            break
        await group.harness.quiet(0.05)
    assert await read_acts(group) == list(acts)


def about(kind: str, number: int) -> AuditDetail:
    return AuditDetail(kind, {"id": number})


async def test_orders_about_messages_are_recorded_once_they_are_carried_out(group: ModeratedGroup) -> None:
    """Not those that are refused: no warning to take back, an exempt author, no message, a member's report."""
    message = await group.moderate("See you all at the meeting.", MEMBER)
    law = group.send("I am the law.", ADMIN)
    for command, more in (
        ("/unwarn", {"reply_to": message}), ("/warn", {"reply_to": law}), ("/spam", {"reply_to": law}), ("/spam", {}),
        ("/report", {"reply_to": message, "by": 6004}),
    ):  # fmt: skip
        await group.command(command, **more)
    group.send("/warn", ADMIN, reply_to=message)
    await group.harness.seen(lambda shown: "warning 1 of 3" in shown.text, group.id)
    for command in ("/unwarn", "/unwarn", "/ham", "/spam"):
        await group.command(command, reply_to=message)
    detail = about("message", message.id)
    await assert_recorded(group, ("warn", detail), ("unwarn", detail), ("ham", detail), ("spam", detail))


async def test_decisions_about_cards_are_recorded_once(group: ModeratedGroup) -> None:
    group.harness.first.script(verdict("job_scam", 97, "Earn from $500 a day"))
    await group.moderate(JOB_SCAM)
    card = await group.card()
    incident = group.harness.events("moderation.incident")[-1]["incident"]
    assert (await group.command("/spam", reply_to=card)).text == "Done."
    assert (await group.command("/spam", reply_to=card)).text == "This has already been handled."
    assert await group.press(card, UNDO) == "Done."
    assert (await group.command("/ham", reply_to=card)).text == "This has already been handled."
    decided = about("incident", incident)
    await assert_recorded(group, ("confirm", decided), ("undo", decided))


async def settings_card(group: ModeratedGroup, *presses: str) -> Message:
    card = await group.command("/moderation")
    for button in presses:
        await group.harness.until(lambda button=button: button in card.labels)
        before = (card.text, card.labels)
        await group.press(card, button)
        # Presses run beside each other: an edit of the one before would show its page again.
        await group.harness.until(lambda before=before: (card.text, card.labels) != before)
    return card


async def test_settings_are_recorded_as_they_were_chosen(group: ModeratedGroup) -> None:
    """A page that is turned and a value that is refused are no acts."""
    for command in (
        "/moderation dry", "/moderation budget 20", "/moderation budget 0", "/moderation reports 0",
        "/moderation cards me", "/rules BAN  Casino*", "/rules dance", "/rules", f"/rules text {'x' * 300}",
    ):  # fmt: skip
        await group.command(command)
    card = await settings_card(group, "Automatic bans", "Rules", "✓ Flooding", "Back", "Cards here")
    await group.wait_card_text(card, "Cards go to: this group")
    await assert_recorded(
        group,
        ("mode", "dry"),
        ("budget", "20"),
        ("budget", "0"),
        ("cards", str(ADMIN)),
        ("rules", "ban Casino*"),
        ("rules", f"text {'x' * 195}"),
        ("ban", "1"),
        ("rule", "flood"),
        ("cards", "here"),
    )


async def test_acts_about_newcomers_are_recorded(group: ModeratedGroup) -> None:
    message = await group.moderate("See you all at the meeting.", MEMBER)
    for command in (
        "/newcomers", "/newcomers raid 10", "/newcomers raid 1001", "/newcomers gate wall", "/newcomers cleanup on",
        "/lock", "/lock poll", "/lock weather", "/unlock poll", "/raid off", "/raid",
    ):  # fmt: skip
        await group.command(command)
    for command in ("/untrust", "/trust"):
        await group.command(command, reply_to=message)
    group.send("/raid on", ADMIN)
    card = await group.harness.seen(lambda shown: shown.text.startswith("Raid mode is on"), group.id)
    assert await group.press(card, "End raid mode", MEMBER) == "Only admins of this group can do this."
    assert await group.press(card, "End raid mode") == "Raid mode is off."
    await assert_recorded(
        group, ("newcomers", "raid 10"), ("newcomers", "cleanup on"), ("lock", "poll"), ("unlock", "poll"),
        ("raid", "off"), ("untrust", str(MEMBER)), ("trust", str(MEMBER)), ("raid", "on"), ("raid", "off"),
    )  # fmt: skip


async def test_an_anonymous_admin_is_recorded_as_the_account_that_telegram_names(group: ModeratedGroup) -> None:
    sender = {"id": group.id, "type": "supergroup", "title": "The Group"}
    await group.command("/moderation dry", ANONYMOUS, extra={"sender_chat": sender})
    await group.harness.quiet()
    [entry] = await Audit(group.harness.services.infra.database, SystemClock()).recent(1)
    assert (entry.action, entry.actor_id, entry.target) == ("moderation.mode", ANONYMOUS, str(group.id))
