"""Extraction of risky features."""

import pytest

from services.moderation.domain.message import MediaKind
from services.moderation.screening.features import RISKY, Feature
from tests.support.group_messages import score_input


@pytest.mark.parametrize(
    ("text", "changes", "feature"),
    [
        ("see https://example.com", {}, Feature.LINK),
        ("see", {"links": ("example.com",)}, Feature.LINK),
        ("t.me/+AbCdEf", {}, Feature.INVITE_LINK),
        ("x", {"links": ("https://t.me/addlist/abc",)}, Feature.INVITE_LINK),
        ("t.me/some_channel", {}, Feature.TELEGRAM_LINK),
        ("https://bit.ly/3x", {}, Feature.SHORTENER),
        ("https://сбербанк-бонус.рф/x", {}, Feature.ODD_HOST),
        ("http://185.12.3.4/pay", {}, Feature.ODD_HOST),
        ("", {"buttons": ("https://x.com",)}, Feature.BUTTON_LINK),
        ("x", {"is_forward": True}, Feature.FORWARD),
        ("x", {"via_bot": "gif"}, Feature.VIA_BOT),
        ("send to 0x52908400098527886E0F7030069857D2E4169EE7", {}, Feature.CRYPTO_ADDRESS),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", {}, Feature.CRYPTO_ADDRESS),
        ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", {}, Feature.CRYPTO_ADDRESS),
        ("TJYeasTPa6gpEEfYqzP8o5nZQkKgMB3p7u", {}, Feature.CRYPTO_ADDRESS),
        ("звони +7 (900) 000-12-34", {}, Feature.PHONE),
        ("89000001234", {}, Feature.PHONE),
        ("write @hr_anna", {}, Feature.HANDLE),
        ("Пишите в лс", {}, Feature.CONTACT_CALL),
        ("ПИШИ \u200bВ Л.С.", {}, Feature.CONTACT_CALL),
        ("ставьте +", {}, Feature.CONTACT_CALL),
        ("DM me", {}, Feature.CONTACT_CALL),
        ("только 500$", {}, Feature.MONEY),
        ("€ 1.200,50", {}, Feature.MONEY),
        ("15 тысяч рублей", {}, Feature.MONEY),
        ("100 USDT", {}, Feature.MONEY),
        ("от 150$ в день", {}, Feature.DAILY_PAY),
        ("$40 an hour", {}, Feature.DAILY_PAY),
        ("раypal", {}, Feature.MIXED_SCRIPT),
        ("f\u200br\u200be\u200be", {}, Feature.HIDDEN),
        ("🔥🔥🔥 SALE 💰💰💰", {}, Feature.MANY_EMOJI),
        ("ONLY TODAY EVERYTHING FOR FREE", {}, Feature.MANY_CAPITALS),
        ("Удалённая работа без опыта", {}, Feature.JOB_LURE),
        ("удaлeннaя paбoта для всех", {}, Feature.JOB_LURE),  # in two scripts
        ("passive income for you", {}, Feature.JOB_LURE),
        ("claim your tokens", {}, Feature.CRYPTO_LURE),
        ("доходность 5% в день", {}, Feature.CRYPTO_LURE),
        ("200 фриспинов", {}, Feature.GAMBLING_LURE),
        ("hot girls here", {}, Feature.ADULT_LURE),
        ("смотри 🔞", {}, Feature.ADULT_LURE),
    ],
)
def test_features_contain(text: str, changes: dict[str, object], feature: Feature) -> None:
    assert feature in score_input(text, **changes)[1]


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("", {}),
        ("hi", {}),
        ("Всем привет! Как дела?", {}),
        ("👍", {}),
        ("❤️❤️", {"media": (MediaKind.PHOTO,)}),
        ("Happy birthday! 🎉🎂", {}),
        ("for i in range(100): print(i ** 2)", {}),
        ("version 3.11.4 came out on 2023-06-06 at 12:30", {}),
        ("my order 12345678901 has not arrived", {}),
        ("commit 4afb8fd2c1e0", {}),
        ("mail me at somebody@example.org", {}),
        ("USA and NATO, OK?", {}),
        ("The cat sat on the mat.\nThe dog did not.", {}),
        ("Ставь лайк, если согласен", {}),
        ("написал диссертацию по личному опыту", {}),
        ("working from the office today", {}),
        ("слоты расширения на материнской плате заняты", {}),
        ("сигнал светофора", {}),
        ("VPNом пользуюсь", {}),
        ("می‌خواهم", {}),
    ],
)
def test_features_of_everyday_talk_are_not_risky(text: str, changes: dict[str, object]) -> None:
    assert score_input(text, **changes)[1] & RISKY == set()
    assert score_input(text, **changes)[1] <= {Feature.GAMBLING_LURE}


@pytest.mark.parametrize(
    ("text", "features"),
    [
        # Money, links and contacts count in the score but do not suffice for the judge.
        ("I paid 20 euros, see https://example.com", {Feature.MONEY, Feature.LINK}),
        ("напиши @alice, она знает", {Feature.CONTACT_CALL, Feature.HANDLE}),
        ("call me +44 7700 900456", {Feature.PHONE}),
        ("WHY DOES NOBODY EVER READ THIS", {Feature.MANY_CAPITALS}),
    ],
)
def test_features_of_money_and_contacts_are_found_but_not_risky(text: str, features: set[Feature]) -> None:
    found = score_input(text)[1]
    assert features <= found
    assert not found & RISKY


@pytest.mark.parametrize(
    "text",
    ["ищу " + "a-" * 2000, "1 " * 2048, "9" * 4096, "пиши" * 1024, "$" * 4096, "1,." * 1365, "🍑" * 4096, "@a" * 2048,
     "набираю aa aa aa " * 240, "0x" * 2048, "+7 (" * 1024, "фото " * 800, "слив \u0430" * 600, "www." * 1024],
)  # fmt: skip
@pytest.mark.timeout(30)
def test_features_of_hostile_text_take_linear_time(text: str) -> None:
    """Eight times Telegram's limit: quadratic time would take minutes."""
    score_input(8 * text)


def test_a_mention_is_no_link() -> None:
    found = score_input("@anna, thank you", links=("@anna",))[1]
    assert found == {Feature.HANDLE} == score_input("@anna, thank you")[1]


def test_a_domain_is_a_link_with_and_without_telegrams_word_for_it() -> None:
    assert (
        score_input("see casino-win.top now", links=("casino-win.top",))[1] == score_input("see casino-win.top now")[1]
    )
    assert Feature.LINK in score_input("see casino-win.top now")[1]
    assert Feature.LINK not in score_input("see you at 10.30, e.g. at home. ok")[1]
