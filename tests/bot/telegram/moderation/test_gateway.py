"""Updates that concern moderation, and changes of members that reach the gate."""

from typing import Any

import pytest
from aiogram.types import ChatMemberAdministrator, ChatMemberMember, ChatMemberRestricted

from bot.telegram.moderation.gateway import ModerationGateway
from core.db.database import Database
from core.redis.client import open_redis
from services.moderation.case import Stage
from services.moderation.domain.settings import Mode
from services.moderation.newcomers.store import Gate, Passage
from tests.support.clock import ManualClock
from tests.support.fake_telegram import messages as telegram
from tests.support.moderation_harness import (
    ADMIN,
    GROUP,
    NEWCOMER,
    SELF,
    ModerationHarness,
    RecordingGroup,
    ScriptedJudge,
)

pytestmark = pytest.mark.integration

OTHER_GROUP = {"id": -101, "type": "supergroup", "title": "Another group"}
PRIVATE = {"id": NEWCOMER, "type": "private", "first_name": "Ann"}


@pytest.fixture
async def harness(file: Database, clock: ManualClock) -> ModerationHarness:
    """A moderated group whose gate asks for a press."""
    harness = ModerationHarness(file, open_redis(None), clock, RecordingGroup(), ScriptedJudge())
    await harness.groups.change(harness.settings)
    await harness.newcomers.store.change(GROUP, gate=Gate.BUTTON.value)
    return harness


@pytest.fixture
def gateway(harness: ModerationHarness) -> ModerationGateway:
    return ModerationGateway(harness.groups, harness.pipeline, harness.newcomers, SELF)


def person(user_id: int = NEWCOMER, *, is_bot: bool = False) -> dict[str, Any]:
    return {"id": user_id, "is_bot": is_bot, "first_name": "Ann"}


def state(status: str, user: dict[str, Any], **fields: object) -> dict[str, Any]:
    """Returns a member without any of the rights that Telegram names for the status."""
    kind = {"administrator": ChatMemberAdministrator, "restricted": ChatMemberRestricted}.get(status, ChatMemberMember)
    rights = {name: False for name, field in kind.model_fields.items() if field.is_required() and name != "user"}
    until = {"until_date": 0} if status in {"restricted", "kicked"} else {}
    return {**rights, "status": status, "user": user, **until, **fields}


def change(
    before: dict[str, Any], after: dict[str, Any], by: int = NEWCOMER, chat: dict[str, Any] = telegram.GROUP
) -> dict[str, Any]:
    return {
        "chat": chat, "from": person(by), "date": 1_800_000_000, "old_chat_member": before, "new_chat_member": after
    }  # fmt: skip


ANN, LEFT = person(), state("left", person())
JOINED, MUTED = state("member", ANN), state("restricted", ANN, is_member=True)
BOT_ADMIN = change(state("member", person(SELF, is_bot=True)), state("administrator", person(SELF, is_bot=True)))
REQUEST = {"chat": telegram.GROUP, "from": ANN, "user_chat_id": 777, "date": 1_800_000_000}


@pytest.mark.parametrize(
    ("content", "mode", "concerns"),
    [
        ({"message": telegram.raw("Hi", chat=telegram.GROUP)}, Mode.DRY, True),
        ({"edited_message": telegram.raw("Hi", chat=telegram.GROUP)}, Mode.ENFORCE, True),
        ({"message": telegram.raw("Hi", chat=telegram.GROUP)}, Mode.OFF, False),
        ({"message": telegram.raw("Hi", chat=OTHER_GROUP)}, Mode.ENFORCE, False),
        ({"message": telegram.raw("Hi", chat=PRIVATE)}, Mode.ENFORCE, False),
        ({"chat_member": change(LEFT, JOINED)}, Mode.ENFORCE, True),
        ({"chat_member": change(LEFT, JOINED)}, Mode.OFF, False),
        ({"chat_join_request": REQUEST}, Mode.ENFORCE, True),
        ({"chat_join_request": REQUEST}, Mode.OFF, False),
        # The bot often becomes an admin before moderation is switched on.
        ({"my_chat_member": BOT_ADMIN}, Mode.OFF, True),
        ({"my_chat_member": {**BOT_ADMIN, "chat": OTHER_GROUP}}, Mode.ENFORCE, True),
        ({"my_chat_member": {**BOT_ADMIN, "chat": PRIVATE}}, Mode.ENFORCE, False),
        # Settings move with their group also while moderation is off.
        ({"message": telegram.raw(chat=telegram.GROUP, migrate_to_chat_id=-102)}, Mode.OFF, True),
        ({"message": telegram.raw(chat=OTHER_GROUP, migrate_from_chat_id=GROUP)}, Mode.OFF, True),
        ({"message": telegram.raw(chat=OTHER_GROUP, migrate_from_chat_id=-103)}, Mode.OFF, False),
        ({"poll_answer": {"poll_id": "1", "user": ANN, "option_ids": [0], "option_persistent_ids": ["a"]}},
         Mode.ENFORCE, False),
    ],
)  # fmt: skip
async def test_updates_of_moderated_groups_concern_moderation(
    harness: ModerationHarness, gateway: ModerationGateway, content: dict[str, Any], mode: Mode, *, concerns: bool
) -> None:
    await harness.groups.change(harness.settings, mode=mode)
    assert await gateway.concerns(telegram.update(**content)) is concerns


@pytest.mark.parametrize(
    ("content", "is_entry"),
    [
        ({"message": telegram.raw("/start gate_-100", chat=PRIVATE)}, True),
        ({"message": telegram.raw("/start", chat=PRIVATE)}, False),
        ({"message": telegram.raw("/start gate_", chat=PRIVATE)}, False),
        ({"message": telegram.raw("/start gate_hello", chat=PRIVATE)}, False),
        ({"message": telegram.raw("/help gate_-100", chat=PRIVATE)}, False),
        ({"message": telegram.raw(chat=PRIVATE, sticker=None)}, False),
        ({"callback_query": {"id": "1", "from": ANN, "chat_instance": "1", "data": "gate:pass:100:0"}}, True),
        ({"callback_query": {"id": "1", "from": ANN, "chat_instance": "1", "data": "gates:1"}}, False),
        ({"callback_query": {"id": "1", "from": ANN, "chat_instance": "1"}}, False),
    ],
)
def test_only_the_gate_is_open_to_everyone(
    gateway: ModerationGateway, content: dict[str, Any], *, is_entry: bool
) -> None:
    assert gateway.is_entry_press(telegram.update(**content)) is is_entry


@pytest.mark.parametrize(
    ("before", "after", "is_held"),
    [
        (LEFT, JOINED, True),
        (state("kicked", ANN), JOINED, True),
        (LEFT, MUTED, True),
        # Restricted, and not in the group.
        (LEFT, state("restricted", ANN, is_member=False), False),
        (JOINED, JOINED, False),
        (MUTED, JOINED, False),
        (JOINED, LEFT, False),
        (LEFT, state("member", person(is_bot=True)), False),
    ],
)
async def test_who_joins_is_held_at_the_gate(
    harness: ModerationHarness,
    gateway: ModerationGateway,
    before: dict[str, Any],
    after: dict[str, Any],
    *,
    is_held: bool,
) -> None:
    outcome = await gateway.moderate(telegram.update(chat_member=change(before, after)))
    assert outcome.stage is Stage.EXEMPT
    assert (harness.group.action_names == ["mute"]) is is_held


@pytest.mark.parametrize(
    ("by", "passage"),
    [
        # Another admin restricts the person: passing lifts nothing any more.
        (ADMIN, Passage.NONE),
        # The bot's own mute is reported, too.
        (SELF, Passage.WAITING),
        (NEWCOMER, Passage.WAITING),
    ],
)
async def test_restriction_by_an_admin_outlasts_the_gate(
    harness: ModerationHarness, gateway: ModerationGateway, by: int, passage: Passage
) -> None:
    await gateway.moderate(telegram.update(chat_member=change(LEFT, JOINED)))
    await gateway.moderate(telegram.update(chat_member=change(JOINED, MUTED, by)))
    known = await harness.newcomers.store.find(GROUP, NEWCOMER)
    assert known is not None
    assert known.passage is passage


async def test_request_to_join_is_asked_in_the_chat_that_telegram_names(
    harness: ModerationHarness, gateway: ModerationGateway
) -> None:
    await gateway.moderate(telegram.update(chat_join_request=REQUEST))
    assert harness.group.questions == [(777, None)]


async def test_joins_and_requests_are_left_alone_while_moderation_is_off(
    harness: ModerationHarness, gateway: ModerationGateway
) -> None:
    await harness.groups.change(harness.settings, mode=Mode.OFF)
    await gateway.moderate(telegram.update(chat_member=change(LEFT, JOINED)))
    await gateway.moderate(telegram.update(chat_join_request=REQUEST))
    outcome = await gateway.moderate(telegram.update(message=telegram.raw("Hello all", chat=telegram.GROUP)))
    assert (harness.group.actions, harness.group.questions, outcome.stage) == ([], [], Stage.EXEMPT)


async def test_bot_sees_joins_while_it_is_an_admin(harness: ModerationHarness, gateway: ModerationGateway) -> None:
    store = harness.newcomers.store
    await gateway.moderate(telegram.update(my_chat_member=BOT_ADMIN))
    assert (await store.entry(GROUP, fresh=True)).joins_since is not None
    bot = person(SELF, is_bot=True)
    await gateway.moderate(telegram.update(my_chat_member=change(state("administrator", bot), state("member", bot))))
    assert (await store.entry(GROUP, fresh=True)).joins_since is None
