"""Adverts in every place where words can stand reach the judge; honest look-alikes are never touched without one."""

from typing import Any

import pytest
from aiogram.types import Message
from redis.asyncio import Redis

from bot.telegram.moderation.gateway import ModerationGateway
from bot.telegram.moderation.messages import to_group_message
from core.db.database import Database
from services.moderation.case import Stage
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.policy import HIGH
from services.moderation.judging.prompt import collect_parts
from services.moderation.screening.features import extract_features, normalise_scored
from services.moderation.spam_score.scorer import SpamScorer
from services.moderation.text.normalise import normalise
from tests.support.clock import ManualClock
from tests.support.fake_telegram import messages as telegram
from tests.support.moderation_harness import OUTAGE, ModerationHarness, RecordingGroup, ScriptedJudge

pytestmark = pytest.mark.integration

FILE = {"file_id": "f", "file_unique_id": "u"}
PHOTO = [{**FILE, "width": 9, "height": 9}]
POINT = {"latitude": 1.0, "longitude": 2.0}
CASINO = {"id": -900, "type": "channel", "title": "Casino bonus 500", "username": "casino_bonus"}
SHOP = {"id": -901, "type": "channel", "title": "Bakery at the station"}
OUTSIDE = {"type": "hidden_user", "date": 1, "sender_user_name": "x"}
HARMLESS = "The weather was fine and everyone was at home. " * 66
RUSSIAN_HARMLESS = "Вчера гуляли по набережной, потом пили чай на даче. " * 62


def poll(question: str, *options: str, **more: object) -> dict[str, Any]:
    shown = [{"text": option, "voter_count": 0, "persistent_id": option} for option in options]
    return {"poll": {
        "id": "1", "question": question, "options": shown, "total_voter_count": 0, "is_closed": False,
        "is_anonymous": True, "type": "regular", "allows_multiple_answers": False, "allows_revoting": False,
        "members_only": False, "members_can_add_options": False, "correct_option_ids": [], **more,
    }}  # fmt: skip


def checklist(title: str, *tasks: str) -> dict[str, Any]:
    return {"checklist": {"title": title, "tasks": [{"id": at, "text": text} for at, text in enumerate(tasks, 1)]}}


def contact(first: str, last: str = "", vcard: str = "") -> dict[str, Any]:
    return {"contact": {"phone_number": "+15551234567", "first_name": first, "last_name": last, "vcard": vcard}}


def venue(title: str, address: str) -> dict[str, Any]:
    return {"venue": {"location": POINT, "title": title, "address": address}}


def named(name: str) -> dict[str, Any]:
    return {"from": {"id": 7, "is_bot": False, "first_name": name}}


ADVERTS: list[tuple[dict[str, Any], str]] = [
    (contact("Подработка 5000р", "в день"), "Подработка 5000р в день"),
    (contact("Ann", vcard="BEGIN:VCARD\r\nitem1.URL:https://win\r\n .example/spins\r\nEND:VCARD"), "win.example/spins"),
    (contact("Support", "", "BEGIN:VCARD\nFN:Support\nNOTE:send your seed phrase\nEND:VCARD"), "seed phrase"),
    (checklist("How to earn", "Register", "Write @boss", "Get 500 a day"), "Get 500 a day"),
    (checklist("Shopping list for the weekend", "Milk", "Bread", "Casino, 100 free spins"), "100 free spins"),
    ({"checklist_tasks_added": {"tasks": [{"id": 4, "text": "Remote work, write @boss in private"}]}}, "write @boss"),
    (poll("Who needs 300 USDT a day?", "I do", "Write @boss"), "300 USDT a day"),
    (poll("Tea or coffee in the morning?", "Tea", "Coffee", "Lottery at t.me/+win"), "t.me/+win"),
    (poll("Capital of France?", "Paris", "Rome", type="quiz", explanation="Free spins at t.me/spins_bot"), "spins_bot"),
    ({"poll_option_added": {"option_persistent_id": "a", "option_text": "Earn from home: @boss"}}, "Earn from home"),
    (venue("Massage for gentlemen 24/7", "t.me/girls_city"), "t.me/girls_city"),
    (venue("Обмен крипты без паспорта", "пишите @obmen"), "без паспорта"),
    ({"story": {"chat": CASINO, "id": 1}}, "Casino bonus 500"),
    ({"story": {"chat": {"id": 9, "type": "private", "first_name": "500$ a day, see bio"}, "id": 1}}, "500$ a day"),
    ({"document": {**FILE, "file_name": "kak_zarabotat_5000_v_den.pdf"}}, "kak zarabotat 5000 v den"),
    ({"audio": {**FILE, "duration": 1, "performer": "@boss", "title": "Easy money from home"}}, "Easy money from home"),
    ({"video": {**FILE, "width": 1, "height": 1, "duration": 1, "file_name": "t.me-girls18-join.mp4"}}, "girls18"),
    ({"photo": PHOTO, "caption": "Пассивный доход, пишите в лс"}, "Пассивный доход"),
    ({"text": "hi", **named("Earn 500$ daily @boss")}, ""),
    ({"text": "привет", **named("Казино Бонус")}, ""),
    ({"text": "hello", **named("Easy money here now")}, ""),
    ({"text": "wow", "quote": {"text": "Best casino in town, bonus 500 " * 30, "position": 0},
      "external_reply": {"origin": OUTSIDE}}, "Best casino in town"),
    ({"text": "ok", "external_reply": {"origin": OUTSIDE, **poll("Earn 500 a day at home?", "Yes")}}, "Earn 500 a day"),
    ({"text": f"{HARMLESS}Write @boss for 500 dollars a day"}, "@boss for 500 dollars"),
    ({"text": f"{RUSSIAN_HARMLESS}Работа на дому, 5000 рублей в день, пишите @boss"}, "5000 рублей в день"),
    ({"photo": PHOTO, "caption": f"{HARMLESS[:900]}Join t.me/+abcdef today"}, "t.me/+abcdef"),
    ({"text": "Зapaбoтoк oт 5000 p в день, пишитe в личкy"}, "в день"),
    ({"text": "Ｅａｓｙ ｍｏｎｅｙ, write me in private"}, "Easy money"),
    ({"text": "E\u200ba\u200bs\u200by m\u200bo\u200bn\u200be\u200by, write to me in private"}, "Easy money"),
    ({"text": "c\u00ada\u00ads\u00adi\u00adn\u00ado, 100 free spins for all"}, "casino, 100 free spins"),
    ({"text": "🅴🅰🆂🆈 🅼🅾🅽🅴🆈"}, "🅼🅾🅽🅴🆈"),
    ({"text": "🇪 🇦 🇸 🇾 🇲 🇴 🇳 🇪 🇾 🇼 🇷 🇮 🇹 🇪"}, "🇪 🇦 🇸 🇾"),
    ({"text": "Look", "reply_markup": {"inline_keyboard": [[{"text": "Claim 500 $", "url": "https://x.example"}]]}},
     "Claim 500 $"),
    ({"text": "Look", "reply_markup": {"inline_keyboard": [[{"text": "Copy", "copy_text": {"text": "t.me/+win500"}}]]}},
     "t.me/+win500"),
    ({"sticker": {**FILE, "type": "regular", "width": 1, "height": 1, "is_animated": False, "is_video": False},
      "forward_origin": {"type": "channel", "chat": CASINO, "message_id": 1, "date": 1}}, "Casino bonus 500"),
    ({"forum_topic_created": {"name": "Easy money, write @boss", "icon_color": 1}}, "Easy money"),
]  # fmt: skip

HONEST: list[dict[str, Any]] = [
    contact("Sergey", "plumber"),
    contact("Dr. Maria Lopez", vcard="BEGIN:VCARD\nFN:Maria Lopez\nORG:City clinic\nURL:https://clinic.example\nEND:VCARD"),
    checklist("Packing for the trip", "Tent", "500 $ in cash", "Write to the landlord"),
    checklist("Работы на субботник", "Купить краску, 5000 р", "Позвать людей", "Ставки: кто что красит"),
    poll("When do we meet at the casino museum?", "Friday", "Saturday at 18"),
    poll("Сколько вы получаете в месяц?", "до 50 000 р", "от 100 000 р"),
    venue("Casino Square, bus stop 18", "Monte Carlo, Place du Casino"),
    venue("Обмен книг", "библиотека на Ленина, 5"),
    {"story": {"chat": {"id": 9, "type": "private", "first_name": "Ann", "last_name": "Lee"}, "id": 1}},
    {"story": {"chat": SHOP, "id": 1}},
    {"document": {**FILE, "file_name": "salary_slip_2026_10.pdf"}},
    {"document": {**FILE, "file_name": "Инструкция по заработной плате.docx"}},
    {"audio": {**FILE, "duration": 1, "performer": "ABBA", "title": "Money, Money, Money"}},
    {"text": "hi", **named("Anna-Maria O’Neill 🌸")},
    {"text": "привет", **named("Саша ❤️ Петрова")},
    {"text": "hello all", **named("Alexander Bonus")},
    {"text": "lol", "quote": {"text": "Best casino in town, bonus 500 " * 30, "position": 0},
     "external_reply": {"origin": OUTSIDE}},
    {"text": f"{HARMLESS}The museum takes 12 euros for a day ticket, and children are free."},
    {"text": f"{RUSSIAN_HARMLESS}Продаю детскую коляску за 5000 рублей, самовывоз."},
    {"text": "Я перешёл на новый iPhoneом, а µTorrent и VPNом не пользуюсь, кто подскажет клиента?"},
    {"text": "Формула H₂O, скорость в м/с, и x² + y² = z² — поможете с домашкой по физике?"},
    {"text": "می\u200cخواهم بدانم ساعت چند است و قطار کی می\u200cرسد"},
    {"text": "👨\u200d👩\u200d👧 We are moving in on Friday, is the lift large enough for a sofa?"},
    {"text": "Beware: people write “easy money, 500 a day” in private. It is a scam, report it."},
    {"text": "Мне вчера писали про «лёгкий заработок 5000 в день», это мошенники, не отвечайте!"},
    {"text": "My employer pays 25 euros an hour for night shifts, is that normal in this city?"},
    {"text": "Подскажите, где подработать студенту летом? Может, кафе или склад."},
    {"text": "How do I pay the 5% deposit for the flat, by card or in cash?"},
    {"text": "Сдаю квартиру на сутки, 2500 в сутки, центр, пишите @olga_flat"},
    {"text": "Продам коляску, 5000 р, пишите в лс"},
    {"text": "Нужен курьер на выходные, 200 рублей за доставку, пишите в личку"},
    {"text": "Looking for two people to help us move on Saturday, $20 an hour and pizza, dm me"},
    {"text": "Отдам котёнка в добрые руки, пишите в личку, фото пришлю."},
    {"text": "The parking app wants my card: https://parking.example/help, does it work for you?",
     "entities": [{"type": "url", "offset": 32, "length": 28}]},
    {"text": "@anna thank you, the doctor that you named helped at once!",
     "entities": [{"type": "mention", "offset": 0, "length": 5}]},
    {"forum_topic_created": {"name": "Neighbours’ flea market", "icon_color": 1}},
    {"sticker": {**FILE, "type": "regular", "width": 1, "height": 1, "is_animated": False, "is_video": False},
     "forward_origin": {"type": "channel", "chat": SHOP, "message_id": 1, "date": 1}},
]  # fmt: skip


@pytest.fixture
async def harness(file: Database, shared_redis: Redis, clock: ManualClock) -> ModerationHarness:
    """A group with the shipped local score and without known members."""
    judge = ScriptedJudge()
    scores = SpamScorer(file, clock)
    harness = ModerationHarness(file, shared_redis, clock, RecordingGroup(), judge, scores)
    await harness.groups.change(harness.settings)
    return harness


def received(fields: dict[str, Any], number: int = 5) -> Message:
    shown: dict[str, Any] = {"chat": telegram.GROUP, "message_id": number, **fields}
    return telegram.message(**shown)


def convert(fields: dict[str, Any], number: int = 5) -> GroupMessage:
    return to_group_message(received(fields, number))


@pytest.mark.parametrize(("fields", "words"), ADVERTS)
async def test_judge_reads_an_advert_wherever_a_newcomer_puts_it(
    harness: ModerationHarness, fields: dict[str, Any], words: str
) -> None:
    message = convert(fields)
    gateway = ModerationGateway(harness.groups, harness.pipeline, harness.newcomers, 42)
    await gateway.moderate(telegram.update(message=received(fields)))
    assert harness.judge.request_count == 1
    assert words in "\n".join(part.text for part in collect_parts(message, normalise(message.text)))


async def test_honest_look_alikes_are_not_touched_while_no_provider_answers(
    harness: ModerationHarness, clock: ManualClock
) -> None:
    """Every author is a newcomer, and only the local score and the rules could decide."""
    harness.judge.default = OUTAGE
    for number, fields in enumerate(HONEST, start=5):
        clock.shift(60)
        person = {"id": 7000 + number, "is_bot": False, "first_name": "Ann"}
        outcome = await harness.pipeline.handle(convert({"from": person, **fields}, number), harness.settings)
        assert outcome.stage in {Stage.WAITS, Stage.PASSED}, fields
        assert not outcome.removed, fields
    assert (harness.group.actions, harness.group.cards) == ([], [])


async def test_honest_look_alikes_stay_below_the_score_of_cards(file: Database, clock: ManualClock) -> None:
    """Score from which a newcomer's message becomes a card after a day without a verdict."""
    scorer, scores = SpamScorer(file, clock), dict[str, int]()
    for fields in HONEST:
        message = convert(fields)
        normal = normalise_scored(message)
        features = extract_features(message, normal)
        scores[message.text] = await scorer.score(message.group_id, normal, features) if normal.text else 0
    assert {text: score for text, score in scores.items() if score >= HIGH} == {}


@pytest.mark.parametrize("event", [{"forum_topic_closed": {}}, {"new_chat_members": [telegram.BOB]}])
async def test_event_without_words_is_no_message(harness: ModerationHarness, event: dict[str, Any]) -> None:
    gateway = ModerationGateway(harness.groups, harness.pipeline, harness.newcomers, 42)
    outcome = await gateway.moderate(telegram.update(message=received({**event, **named("500$ @boss")})))
    assert (outcome.stage, harness.judge.request_count) == (Stage.EXEMPT, 0)
