"""Cards, warnings and notices in the chats of a fake Telegram: where they go, and what they say."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.moderation.cards import IncidentCards
from core.i18n import Texts
from services.moderation.domain.incident import Finding, Incident, Source, Tally
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.policy import Plan, Sanction
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.domain.verdict import Category, Evidence
from tests.support.clock import ManualClock
from tests.support.fake_telegram.chats import Message
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic

pytestmark = pytest.mark.integration

GROUP, ADMIN, OFFICE, TOPIC = -100, 5001, -900, 9
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
IN_GROUP, TO_ADMIN = GroupSettings(GROUP, mode=Mode.ENFORCE), GroupSettings(GROUP, mode=Mode.ENFORCE, cards_to=ADMIN)
MUTE = Plan(card=True, delete=True, sanction=Sanction.MUTE)
FINDING = Finding(
    GROUP, (11,), "v", 0, Author(7, AuthorKind.USER, "Bob"), "Easy money", Category.JOB_SCAM, 97, Source.JUDGE, MUTE,
    dry_run=False, provider="a · m", evidence="easy  money",
)  # fmt: skip
INCIDENT = Incident(3, FINDING, NOON, sanctioned="done", deleted="done")


@pytest.fixture
def cards(delivery: Delivery, traffic: Traffic, clock: ManualClock, server: TelegramServer) -> IncidentCards:
    server.chat(GROUP).admin_ids = {ADMIN}
    return IncidentCards(delivery, GroupAdmins(traffic.bot, clock), Texts(strict=True))


def incident(**changes: Any) -> Incident:
    """Returns the incident with changes of its own fields, and of those of its finding."""
    own = {name: changes.pop(name) for name in list(changes) if name in Incident.__dataclass_fields__}
    return replace(INCIDENT, finding=replace(FINDING, **changes), **own)


async def show(cards: IncidentCards, server: TelegramServer, shown: Incident, settings: GroupSettings) -> Message:
    location = await cards.show(shown, settings)
    assert location is not None
    return next(each for each in server.chat(location.chat_id).answers() if each.id == location.message_id)


async def test_card_is_in_the_topic_of_its_message_or_in_the_chat_that_gets_the_cards(
    cards: IncidentCards, server: TelegramServer
) -> None:
    in_topic = incident(topic_id=TOPIC)
    message = await show(cards, server, in_topic, IN_GROUP)
    assert (message.chat_id, message.topic_id) == (GROUP, TOPIC)
    message = await show(cards, server, in_topic, TO_ADMIN)
    assert (message.chat_id, message.topic_id) == (ADMIN, None)
    server.block(ADMIN)
    message = await show(cards, server, in_topic, TO_ADMIN)
    assert (message.chat_id, message.topic_id) == (GROUP, TOPIC)
    server.block(GROUP)
    assert await cards.show(in_topic, TO_ADMIN) is None


async def test_cards_are_located_where_they_are_shown(cards: IncidentCards, server: TelegramServer) -> None:
    assert await cards.locate(IN_GROUP) == GROUP
    assert await cards.locate(TO_ADMIN) == ADMIN
    # Members of an admin chat are not asked for: it is the operator's choice.
    assert await cards.locate(replace(TO_ADMIN, cards_to=OFFICE)) == OFFICE
    server.chat(GROUP).admin_ids.discard(ADMIN)
    assert await cards.locate(TO_ADMIN) == GROUP


@pytest.mark.parametrize(("settings", "held"), [(IN_GROUP, GROUP), (TO_ADMIN, ADMIN)])
async def test_edit_is_put_off_while_flood_control_holds_the_chat_of_the_cards(
    cards: IncidentCards, server: TelegramServer, settings: GroupSettings, held: int
) -> None:
    message = await show(cards, server, INCIDENT, settings)
    told = incident(card_chat_id=held, card_message_id=message.id, undone_by="Ann")
    assert cards.held_s(settings) == 0
    server.fail("editMessageText", status=429, description="Too Many Requests: retry after 30", retry_after=30)
    assert not await cards.refresh(told, settings)
    assert not await cards.refresh(told, settings)
    assert cards.held_s(settings) == 30
    assert "Undone" not in message.text


async def test_edit_keeps_the_open_decisions(cards: IncidentCards, server: TelegramServer) -> None:
    message = await show(cards, server, INCIDENT, IN_GROUP)
    place = {"card_chat_id": GROUP, "card_message_id": message.id}
    for changes, labels, line in (
        ({}, ["Undo", "Confirm", "Ban"], "Easy money"),
        ({"confirmed_by": "Ann"}, ["Undo", "Ban"], "Confirmed by Ann."),
        ({"banned_by": "Ann"}, ["Undo", "Confirm"], "Banned by Ann."),
        ({"plan": Plan(card=True, delete=True, sanction=Sanction.BAN)}, ["Undo", "Confirm"], "banned the author"),
        ({"undone_by": "Ann"}, [], "Undone by Ann."),
    ):
        assert await cards.refresh(incident(**place, **changes), IN_GROUP)
        assert (message.labels, line in message.text) == (labels, True)
    assert await cards.refresh(incident(), IN_GROUP), "an incident without a card of its own"


async def test_erased_card_names_neither_author_nor_words(cards: IncidentCards, server: TelegramServer) -> None:
    """Also in the private chat of a former admin."""
    message = await show(cards, server, INCIDENT, TO_ADMIN)
    server.chat(GROUP).admin_ids.discard(ADMIN)
    place = {"card_chat_id": ADMIN, "card_message_id": message.id}
    erased = incident(**place, is_erased=True, text="", evidence=None, detail=Evidence.MISSING)
    assert await cards.refresh(erased, TO_ADMIN)
    assert message.text == (
        "Done: deleted the message, muted the author for 24 hours.\nReason: job scam, 97% confidence (a · m)\n\n"
        "The message text was erased after 7 days."
    )
    assert (message.labels, message.entities) == ([], [])


async def test_card_of_a_former_admin_loses_its_buttons_and_keeps_its_text(
    cards: IncidentCards, server: TelegramServer
) -> None:
    message = await show(cards, server, INCIDENT, TO_ADMIN)
    server.chat(GROUP).admin_ids.discard(ADMIN)
    text = message.text
    assert await cards.refresh(incident(card_chat_id=ADMIN, card_message_id=message.id, undone_by="Ann"), TO_ADMIN)
    assert (message.text, message.labels) == (text, [])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "Done: deleted the message, muted the author for 24 hours."),
        ({"deleted": "gone"}, "Done: deleted the message, muted the author for 24 hours."),
        ({"sanctioned": "no_right"}, "Done: deleted the message."),
        ({"sanctioned": "no_right"}, "The author could not be restricted: the bot lacks the admin right."),
        ({"deleted": "no_right"}, "Done: muted the author for 24 hours."),
        ({"deleted": "failed"}, "The message could not be deleted: Telegram refused."),
        ({"deleted": "protected", "sanctioned": "protected"}, "Please review. No action was taken."),
        ({"deleted": "protected"}, "The message could not be deleted: they are an admin."),
        ({"sanctioned": "warned 2", "plan": Plan(card=True, delete=False, sanction=Sanction.WARN), "deleted": None},
         "Done: warned the author (2 of 3 in 30 days)."),
        ({"sanctioned": "muted 3", "plan": Plan(card=True, delete=False, sanction=Sanction.WARN), "deleted": None},
         "Done: warned the author (3 in 30 days) and muted them for 24 hours."),
        ({"dry_run": True, "deleted": None, "sanctioned": None},
         "Dry run: no action taken. Would have: deleted the message, muted the author for 24 hours."),
        ({"plan": Plan(card=True), "deleted": None, "sanctioned": None}, "Please review. No action was taken."),
        # An admin confirmed a card that only asked for a look.
        ({"plan": Plan(card=True), "sanctioned": None}, "Done: deleted the message."),
        ({"tally": Tally(2, 1, 1, ("Other words",))}, "On this card: 2 messages by 1 member, 1 restricted."),
        ({"tally": Tally(2, 1, 1, ("Other words",))}, "Other words"),
        ({"text": "", "evidence": None}, "The message has no text."),
        ({"source": Source.RULE, "detail": "banned: t.me"}, "Reason: a rule of this group (banned: t[.]me)"),
        ({"source": Source.OUTAGE, "confidence": 98}, "no AI provider was available; the local score is 98 of 100"),
        ({"detail": Evidence.MISSING}, "The model could not quote evidence, so the decision is yours."),
        ({"detail": Evidence.NAME}, "The evidence is in the author’s name, so the decision is yours."),
        ({}, "Evidence: “easy money”"),
        ({"author": Author(7, AuthorKind.USER, "see t.me/x")}, "From: see t[.]me/x (7)"),
    ],
)  # fmt: skip
async def test_card_says_why_and_how_it_came(
    cards: IncidentCards, server: TelegramServer, changes: dict[str, Any], line: str
) -> None:
    message = await show(cards, server, incident(**changes), IN_GROUP)
    assert line in message.text


async def test_words_of_people_are_spoilers(cards: IncidentCards, server: TelegramServer) -> None:
    message = await show(cards, server, incident(tally=Tally(2, 1, 1, ("Other words",))), IN_GROUP)
    hidden = [message.text[each["offset"] :][: each["length"]] for each in message.entities]
    assert hidden == ["easy money", "Easy money", "Other words"]
    assert {each["type"] for each in message.entities} == {"spoiler"}


@pytest.mark.parametrize(("count", "words"), [(2, "This is warning 2 of 3"), (3, "this was warning 3 in 30 days")])
async def test_warning_replies_to_the_message_in_its_topic(
    cards: IncidentCards, server: TelegramServer, count: int, words: str
) -> None:
    said = server.user_says("You are all idiots", GROUP, user_id=7, message_thread_id=TOPIC)
    await cards.warn(incident(topic_id=TOPIC, message_ids=(said.id,)), IN_GROUP, count)
    [warning] = server.chat(GROUP).answers()
    assert (warning.reply_to, warning.topic_id, words in warning.text) == (said.id, TOPIC, True)
    assert warning.text.startswith("Bob, ")


@pytest.mark.parametrize(
    ("settings", "is_blocked", "chat_id"), [(IN_GROUP, False, GROUP), (TO_ADMIN, False, ADMIN), (TO_ADMIN, True, GROUP)]
)
async def test_alert_is_sent_once(
    cards: IncidentCards, server: TelegramServer, settings: GroupSettings, chat_id: int, *, is_blocked: bool
) -> None:
    if is_blocked:
        server.block(ADMIN)
    await cards.alert(settings, "moderation-budget-spent", budget=20)
    sent = {each: server.chat(each).texts() for each in (GROUP, ADMIN) if server.chat(each).texts()}
    assert list(sent) == [chat_id]
    assert "budget of 20 AI judgements" in sent[chat_id][0]
