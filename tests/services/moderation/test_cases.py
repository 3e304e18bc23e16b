"""Situations from the field (`data/cases.jsonl`): each line has a check by its name, on the whole pipeline."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from bot.telegram.api.filters import Command
from bot.telegram.moderation.admin_acts import AdminActs
from bot.telegram.moderation.cards import ResolveIncident
from bot.telegram.moderation.handlers import ModerationHandlers
from bot.telegram.moderation.messages import to_group_message
from core.db.database import Database
from core.db.moderation_tables import ModerationMemberRow
from core.i18n import Texts
from services.moderation.actions import ResolveResult
from services.moderation.domain.incident import Resolution
from services.moderation.domain.message import Author, AuthorKind, GroupMessage, MediaKind
from services.moderation.domain.ports import Restriction, Standing
from services.moderation.domain.settings import LinkPolicy, RuleSet
from services.moderation.domain.verdict import Category, Evidence, NoVerdictReason, Unjudged, Verdict
from services.moderation.judging.judge import Budget, locate_evidence
from services.moderation.judging.prompt import collect_parts
from services.moderation.spam_score.scorer import SpamScorer
from services.moderation.text.normalise import normalise
from tests.support.clock import ManualClock
from tests.support.fake_telegram import messages as telegram
from tests.support.moderation_harness import (
    ADMIN,
    GROUP,
    NEWCOMER,
    OUTAGE,
    SCAM,
    ModerationHarness,
    RecordingGroup,
    ScriptedJudge,
    judged,
)

pytestmark = pytest.mark.integration

CASES = [json.loads(line) for line in (Path(__file__).parent / "data" / "cases.jsonl").read_text("utf-8").splitlines()]
MEMBER = 6002
ADVERT = "Easy money from home, 500 dollars a day, write to me in private"
Check = Callable[["Situation"], Awaitable[None]]
CHECKS: dict[str, Check] = {}


class Situation:
    """A group with an established member, in which messages are sent."""

    def __init__(self, harness: ModerationHarness, database: Database, clock: ManualClock) -> None:
        self.harness, self.database, self.clock = harness, database, clock
        self.group, self.judge = harness.group, harness.judge
        self._number = 0

    async def send(self, text: str = "", by: int = NEWCOMER, **changes: object) -> GroupMessage:
        self._number += 1
        message = replace(self.harness.message(text, self._number), author=Author(by, AuthorKind.USER, f"Member {by}"))
        message = replace(message, **changes)
        await self.harness.pipeline.handle(message, self.harness.settings)
        return message

    async def send_raw(self, text: str | None = None, **fields: object) -> GroupMessage:
        """Sends a message as Telegram describes it."""
        message = to_group_message(telegram.message(text, chat=telegram.GROUP, **fields))
        await self.harness.pipeline.handle(message, self.harness.settings)
        return message

    def read(self, message: GroupMessage) -> str:
        """Returns everything of a message that the judge reads."""
        return "\n".join(part.text for part in collect_parts(message, normalise(message.text)))

    @property
    def deleted(self) -> int:
        return sum(len(action[1]) for action in self.group.actions if action[0] == "delete")


@pytest.fixture
async def situation(file: Database, shared_redis: Redis, clock: ManualClock) -> Situation:
    judge = ScriptedJudge()
    harness = ModerationHarness(file, shared_redis, clock, RecordingGroup(), judge)
    await harness.groups.change(harness.settings)
    async with file.session() as session:
        long_ago = clock.now() - timedelta(days=60)
        session.add(ModerationMemberRow(group_id=GROUP, member_id=MEMBER, first_seen=long_ago, meaningful=50))
    return Situation(harness, file, clock)


def case(name: str) -> Callable[[Check], Check]:
    def register(check: Check) -> Check:
        CHECKS[name] = check
        return check

    return register


@pytest.mark.parametrize("name", [line["case"] for line in CASES])
async def test_case(situation: Situation, name: str) -> None:
    await CHECKS[name](situation)


@case("an established member forwards ten messages at once")
async def _(at: Situation) -> None:
    for number in range(10):
        await at.send(by=MEMBER, forwarded=f"News number {number} of the town", is_forward=True)
    assert (at.deleted, len(at.group.cards)) == (0, 0)


@case("an established member posts eight photos, not as an album")
async def _(at: Situation) -> None:
    for _number in range(8):
        at.clock.shift(1)
        await at.send(by=MEMBER, media=(MediaKind.PHOTO,))
    assert (at.deleted, len(at.group.cards)) == (0, 0)


@case("an established member writes “Thank you so much!” in reply to three helpers within a minute")
async def _(at: Situation) -> None:
    for number in range(3):
        at.clock.shift(15)
        await at.send("Thank you so much!", MEMBER, reply_to=900 + number)
    assert (at.deleted, at.judge.request_count) == (0, 0)


@case("a member sends /roll@dicegame_bot six times")
async def _(at: Situation) -> None:
    for by in (MEMBER, NEWCOMER):
        for _number in range(6):
            await at.send("/roll@dicegame_bot", by)
    assert (at.deleted, len(at.group.cards)) == (0, 0)


@case("a newcomer writes “@anna, thank you!” with the switch Links: not new")
async def _(at: Situation) -> None:
    at.harness.settings = replace(at.harness.settings, rules=RuleSet(links=LinkPolicy.NOT_FROM_NEWCOMERS))
    await at.send("@anna, thank you!", links=("@anna",))
    assert at.deleted == 0
    # A link in plain words is one.
    await at.send("Look: https://shop.example", links=("https://shop.example",))
    assert at.deleted == 1


@case("a newcomer writes “круто” over an external quotation that advertises a casino")
async def _(at: Situation) -> None:
    verdict = Verdict(category=Category.GAMBLING, confidence=97, about="quoted", evidence="лучшее казино")
    message = await at.send_raw(
        "круто",
        quote={"text": "Лучшее казино города, бонус 500", "position": 0},
        external_reply={"origin": {"type": "hidden_user", "date": 1, "sender_user_name": "x"}},
    )
    evidence = locate_evidence(verdict, message, normalise(message.text))
    assert evidence is Evidence.QUOTED
    at.judge.default = replace(judged(Category.GAMBLING, 97), verdict=verdict, evidence=evidence)
    await at.send(message.text, quoted=message.quoted, quotes_outside=True)
    assert (at.group.actions, len(at.group.cards)) == ([], 1)


@case("3,500 harmless characters in a folded quotation, then an advert")
async def _(at: Situation) -> None:
    harmless = "The weather was fine and everyone was at home. " * 75
    text = f"{harmless}\n{ADVERT}"
    fold = [{"type": "expandable_blockquote", "offset": 0, "length": len(harmless)}]
    message = await at.send_raw(text, entities=fold)
    assert at.judge.request_count == 1
    assert ADVERT in at.read(message)


@case("a contact card named “Easy money, write me”, from a newcomer")
async def _(at: Situation) -> None:
    message = await at.send_raw(contact={"phone_number": "+15551234567", "first_name": "Easy money, write me"})
    assert at.judge.request_count == 1
    assert "Easy money, write me" in at.read(message)


@case("a file named earn_500_a_day.apk, from a newcomer")
async def _(at: Situation) -> None:
    document = {"file_id": "f", "file_unique_id": "u", "file_name": "earn_500_a_day.apk"}
    message = await at.send_raw(document=document)
    assert at.judge.request_count == 1
    assert "earn 500 a day" in at.read(message)


@case("an album of four of which one caption is edited into an advert")
async def _(at: Situation) -> None:
    album = await at.send("Our garden", message_ids=(11, 12, 13, 14), album="g", media=(MediaKind.PHOTO,) * 4)
    at.judge.default = SCAM
    edit = replace(album, message_ids=(12,), text=ADVERT, edited_at=at.clock.now(), media=(MediaKind.PHOTO,))
    outcome = await at.harness.pipeline.handle(edit, at.harness.settings)
    assert outcome.removed
    assert [action[1] for action in at.group.actions if action[0] == "delete"] == [(11, 12, 13, 14)]


@case("50 newcomers post 200 adverts in a minute")
async def _(at: Situation) -> None:
    """A fifth of them, for the time that it takes."""
    at.judge.default = SCAM
    for number in range(40):
        at.clock.shift(0.3)
        await at.send(f"{ADVERT} {number}", 7000 + number % 10)
    assert (at.deleted, len(at.group.cards)) == (40, 1)
    assert at.group.action_names.count("mute") == 10


@case("the model answers with something that is no verdict, for one message")
async def _(at: Situation) -> None:
    at.judge.script.append(Unjudged(NoVerdictReason.MALFORMED))
    at.judge.default = SCAM
    for number in range(3):
        await at.send(f"{ADVERT} {'abc'[number]}", 7000 + number)
    assert (at.deleted, at.judge.request_count) == (2, 3)
    assert [card.finding.message_ids for card in at.group.cards] == [(1,), (2,)]


@case('the model answers with confidence 1e999, 0.97, "97", -3, NaN')
async def _(_at: Situation) -> None:
    for value in ('"97"', "0.97", "97", '"97 %"', '"0,97"', "96.6"):
        assert Verdict.model_validate_json(f'{{"category": "adult", "confidence": {value}}}').confidence == 97
    assert Verdict.model_validate_json('{"category": "adult", "confidence": "1"}').confidence == 1
    for value in ("1e999", "-3", "NaN", '"NaN"', "-1e999", '"inf"', "null", "true", "101", '"high"', "1e30", "[97]"):
        with pytest.raises(ValidationError):
            Verdict.model_validate_json(f'{{"category": "adult", "confidence": {value}}}')


@case("the model's evidence is one letter")
async def _(at: Situation) -> None:
    message = at.harness.message(ADVERT)
    for evidence in ("a", "E", " ", "", "e.", "ne", "asy mone"):
        verdict = Verdict(category=Category.JOB_SCAM, confidence=97, evidence=evidence)
        assert locate_evidence(verdict, message, normalise(message.text)) is Evidence.MISSING
    at.judge.default = replace(judged(Category.JOB_SCAM, 97), evidence=Evidence.MISSING)
    await at.send(ADVERT)
    assert (at.group.actions, len(at.group.cards)) == ([], 1)


@case("four hours without any provider, then they are back")
async def _(at: Situation) -> None:
    at.judge.default = OUTAGE
    for _half_hour in range(8):
        at.clock.shift(1800)
        await at.send("How do I set up the heating in this house?")
        await at.harness.run_round()
    at.judge.default, asked = SCAM, at.judge.request_count
    for _part in range(30):
        at.clock.shift(20)
        await at.harness.run_round()
    assert (at.judge.request_count - asked, at.deleted) == (8, 8)


@case("500 messages wait when providers return, 1.5 s a judgement")
async def _(at: Situation) -> None:
    """60 of them on this clock; all of them is arithmetic: 500 of 1.5 s by eight workers take 94 s."""
    for number in range(60):
        await at.harness.pending.put(at.harness.message(number=number), "v")
    running = most = 0
    judge = at.judge.judge

    async def take_time(message: GroupMessage, *rest: object) -> object:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await asyncio.sleep(0.4)
        running -= 1
        return await judge(message, *rest)

    at.judge.judge = take_time
    at.clock.shift(400)
    await at.harness.run_round()
    assert at.judge.request_count == 60
    assert most == 8


@case("“Заработок” spelt with one foreign letter, in an honest alert about a missing child, all providers down")
async def _(at: Situation) -> None:
    scores = SpamScorer(at.database, at.clock)
    harness = ModerationHarness(at.database, at.harness.redis, at.clock, at.group, at.judge, scores)
    at.judge.default = OUTAGE
    alert = (
        "Внимание, пропал ребёнок! Мальчик 9 лет, ушёл из школы вчера в 14:00 и не вернулся. Был в синей куртке. "
        "Последний раз его видели у вывески «Зapaботок» на улице Ленина. Кто видел, звоните +7 900 123-45-67!"
    ).replace("Зapaботок", "Зарaботок")
    outcome = await harness.pipeline.handle(harness.message(alert), harness.settings)
    assert (outcome.removed, at.group.actions) == (False, [])


@case("an admin was demoted two seconds ago and presses Ban")
async def _(at: Situation) -> None:
    """The cached list still has them."""
    at.judge.default = SCAM
    await at.send(ADVERT)
    at.group.actions.clear()
    at.group.standings[ADMIN] = Standing.MEMBER
    handlers = ModerationHandlers(
        actions=at.harness.actions, incidents=at.harness.incidents, groups=at.harness.groups,
        acts=AdminActs(admins=at.group, groups=at.harness.groups, audit=AsyncMock(), replies=AsyncMock()),
        delivery=SimpleNamespace(answer_callback=AsyncMock()), texts=Texts(strict=True),
    )  # fmt: skip
    presser = SimpleNamespace(id=ADMIN, full_name="A former admin", language_code="en")
    press = ResolveIncident(what=Resolution.BAN, incident=at.group.cards[0].id)
    await handlers.resolve(SimpleNamespace(id="1", from_user=presser, message=None), press)
    assert at.group.actions == []
    at.group.standings[ADMIN] = Standing.ADMIN
    await handlers.resolve(SimpleNamespace(id="2", from_user=presser, message=None), press)
    assert at.group.action_names == ["ban"]


@case("a member was promoted two seconds ago and posts a link")
async def _(at: Situation) -> None:
    at.group.standings[NEWCOMER] = Standing.ADMIN
    at.judge.default = SCAM
    await at.send("Join https://t.me/+abc", links=("https://t.me/+abc",))
    assert at.group.actions == []
    incident = at.group.cards[0]
    result, _incident = await at.harness.actions.resolve(incident, Resolution.BAN, at.harness.settings, "Ann")
    assert (result, at.group.actions) == (ResolveResult.PROTECTED, [])


@case("a photo with the caption /report, in reply")
async def _(_at: Situation) -> None:
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 9, "height": 9}]
    message = telegram.message(None, chat=telegram.GROUP, photo=photo, caption="/report")
    assert await Command("report")(message, telegram.BOB)


@case("one account posts 60 adverts in a group with a budget of 20 judgements")
async def _(at: Situation) -> None:
    budget = Budget(at.harness.redis, "t", at.clock)
    taken = [await budget.take(GROUP, NEWCOMER, 20) for _number in range(60)]
    assert taken == [None] * 5 + [NoVerdictReason.AUTHOR_BUDGET] * 55
    assert [await budget.take(GROUP, 7000 + number, 20) for number in range(15)] == [None] * 15
    assert await budget.take(GROUP, 7100, 20) is NoVerdictReason.BUDGET


@case("Undo of a mute of a member that another admin had restricted before")
async def _(at: Situation) -> None:
    before = Restriction(permissions=frozenset({"can_send_messages"}))
    at.group.restrictions[NEWCOMER] = before
    at.judge.default = SCAM
    await at.send(ADVERT)
    await at.harness.actions.resolve(at.group.cards[0], Resolution.UNDO, at.harness.settings, "Ann")
    # Telegram still says that the restriction holds, which is not the bot's mute: it stays.
    assert at.group.action_names == ["mute", "delete"]
