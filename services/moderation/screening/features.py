"""Extracts risky features from a message's form and topic. A feature sends a message to the judge, no more."""

import re
import unicodedata
from enum import StrEnum

from services.moderation.domain.incident import display_text
from services.moderation.domain.message import GroupMessage
from services.moderation.text.excerpt import cut_long
from services.moderation.text.links import extract_links, find_bare_links
from services.moderation.text.normalise import Normal, normalise

_REST_OF_WORD = r"\w{0,20}"


def _any_of(*patterns: str) -> re.Pattern[str]:
    """Joins alternatives into one pattern; `~` stands for any ending of a word."""
    return re.compile("|".join(patterns).replace("~", _REST_OF_WORD))


_AMOUNT = r"\d[\d .,]{0,12}"
_CURRENCY = r"(?:usdt|usd|eur|euros?|dollars?|bucks|руб~|р|тыс~|доллар~|евро|бакс~|грн|тенге|долл)\b"
_PERIOD = r"(?:день|дн~|сутки|час|недел~|смен~|day|week|hour|shift)\b"
_PRIVATELY = r"(?:\bл\.?\s?с\.?(?!\w)|личк|личн~ сообщ|\bдирект|@\w)"

MONEY = _any_of(
    rf"[$€£₽₴₸₿]\s?{_AMOUNT}",
    rf"\b(?:usdt|usd|eur)\s?{_AMOUNT}",
    rf"{_AMOUNT}\s?[kк]?\+?\s?(?:[$€£₽₴₸₿%]|{_CURRENCY})",
)
DAILY_PAY = _any_of(
    rf"(?:[$€£₽₴₸₿\d]|\d\s?[kк]|{_CURRENCY})\+?\s?(?:(?:в|за|/|per|a|an|each|every|кажд~)\s?{_PERIOD}|daily|weekly|hourly"
    r"|ежедневно)",
)
CONTACT_CALL = _any_of(
    rf"\b(?:пиш|напиш|стуч|обращ|жду|ответ|подробност|детал|инф)[^.!?\n]{{0,40}}{_PRIVATELY}",
    r"\b(?:пиши|пишите|напишите|напиши|ставь|ставьте|жми|жмите)\s?[\"'«(]?\s?(?:\+|плюс)",
    r"\b(?:dm|pm|message|msg|text|write|contact|inbox|whatsapp|hit)\s(?:me|us|to me|up)\b",
    r"\binbox\b",
    r"\bin dms?\b",
    r"\bfor (?:details|more info)\b",
)
JOB_LURE = _any_of(
    r"удаленн~ (?:работ|заработ|подработ|занятост|доход)",
    r"без опыта",
    r"пассивн~ доход",
    r"легк~ (?:деньг|заработ)",
    r"\b(?:набира|ищ|треб)~ (?:[\w-]{1,25} ){0,3}(?:люд|человек|сотрудник|партнер|курьер|команд)",
    r"ежедневн~ (?:выплат|доход|оплат)",
    r"выплат~ (?:каждый день|ежедневно)",
    r"подработк",
    r"заработ~ от\b",
    r"\bwork from home\b",
    r"\bpassive income\b",
    r"\bno experience\b",
    r"\bextra (?:income|cash|money)\b",
    r"\bearn (?:up to|from|\$)",
    r"\b(?:hiring|looking for) (?:[\w-]{1,25} ){0,3}(?:people|partners|assistants?|team)\b",
    r"\bdaily pay",
    r"\bquick money\b",
)
CRYPTO_LURE = _any_of(
    r"\bairdrop",
    r"\b(?:аир|эйр)дроп",
    r"\bpresale\b",
    r"\b(?:seed|recovery) phrase\b",
    r"\bсид[- ]фраз",
    r"\bp2p\b",
    r"\bарбитраж",
    r"\bcrypto signals?\b",
    r"\bсигнал~ (?:по )?(?:крипт|трейд)",
    r"\bguaranteed (?:profit|return|income)s?\b",
    r"\bгарантированн~ (?:прибыл|доход)",
    r"\bconnect (?:your )?wallet\b",
    r"\bclaim (?:your )?(?:tokens?|reward|bonus|nft)",
    r"\bдоходност~ (?:от )?\d",
    r"\b\d{1,4} ?% (?:в|за|per|a) (?:день|сутки|недел|месяц|day|week|month)",
)
GAMBLING_LURE = _any_of(
    r"\bказино\b",
    r"\bcasino",
    r"\bфриспин",
    r"\bfree ?spins?\b",
    r"\bставк~ на спорт",
    r"\bпромокод",
    r"\bbetting\b",
    r"\bjackpot\b",
    r"\bджекпот",
    r"\bигров~ автомат",
    r"\bслот~ (?:бонус|онлайн)",
    r"\bslots? (?:bonus|game)",
    r"\b1x(?:bet|win)\b",
    r"\bдоговорн~ матч",
    r"\bfixed match",
)
ADULT_LURE = _any_of(
    r"\b(?:интим|шлюх|проститут|эскорт|порн)",
    r"\bсекс[- ]?(?:чат|знаком|видео|услуг|встреч)",
    r"\b18\+",
    r"\b(?:слив|фото|видео)~ (?:\w{1,20} )?(?:голы|интим|девуш~ 18)",
    r"\b(?:nudes?|porn|onlyfans|escorts?|xxx)\b",
    r"\bhot (?:girls?|milfs?|singles?|babes?)\b",
    r"\bsex (?:chat|cam|dating)\b",
    r"🔞",
    r"🍑.{0,20}💦",
)


class Feature(StrEnum):
    """A risky feature. Its value is hashed into the local score."""

    LINK = "link"
    TELEGRAM_LINK = "telegram_link"
    INVITE_LINK = "invite_link"
    SHORTENER = "shortener"
    ODD_HOST = "odd_host"
    """An internationalised domain, or an IP address."""
    BUTTON_LINK = "button_link"
    FORWARD = "forward"
    VIA_BOT = "via_bot"
    CRYPTO_ADDRESS = "crypto_address"
    PHONE = "phone"
    HANDLE = "handle"
    CONTACT_CALL = "contact_call"
    """Asks for a private message."""
    MONEY = "money"
    DAILY_PAY = "daily_pay"
    """Pay by the day, hour or week."""
    MIXED_SCRIPT = "mixed_script"
    HIDDEN = "hidden"
    MANY_EMOJI = "many_emoji"
    MANY_CAPITALS = "many_capitals"
    ADULT_LURE = "adult_lure"
    JOB_LURE = "job_lure"
    CRYPTO_LURE = "crypto_lure"
    GAMBLING_LURE = "gambling_lure"


class Signal(StrEnum):
    """Evidence from outside the message. It adds to the local score and is no part of it: training never sees it."""

    LISTED = "listed"
    """A public list of spammers has the author's account."""
    CAMPAIGN = "campaign"
    """Another group of the operator has found this advert."""


RISKY: frozenset[str] = frozenset(Feature) - {
    Feature.LINK,
    Feature.TELEGRAM_LINK,
    Feature.HANDLE,
    Feature.PHONE,
    Feature.MONEY,
    Feature.MANY_CAPITALS,
    Feature.MANY_EMOJI,
    Feature.FORWARD,
    Feature.CONTACT_CALL,
}
"""Features that suffice to ask the judge. The others occur in everyday talk and only count in the score."""

SHORTENERS = frozenset(
    {"bit.ly", "tinyurl.com", "goo.gl", "t.co", "is.gd", "cutt.ly", "ow.ly", "rb.gy", "shorturl.at", "clck.ru",
     "vk.cc", "u.to", "tiny.cc", "rebrand.ly", "s.id", "lnkd.in", "buff.ly", "t.ly", "bl.ink", "qps.ru", "goo.su"}
)  # fmt: skip

_CRYPTO_ADDRESS = re.compile(
    r"(?<![0-9A-Za-z])(?:0x[0-9a-fA-F]{40}|bc1[02-9ac-hj-np-z]{25,62}|[13][1-9A-HJ-NP-Za-km-z]{25,34}"
    r"|T[1-9A-HJ-NP-Za-km-z]{33}|(?:EQ|UQ)[0-9A-Za-z_-]{46})(?![0-9A-Za-z])"
)
"""Ethereum and compatible chains, Bitcoin (both formats), Tron, TON."""
_PHONE = re.compile(r"(?<![\w.])(?:\+\d[\d ()\-]{8,17}\d|8[ (-]{0,2}9\d{2}[ )-]{0,2}\d{3}[ -]?\d{2}[ -]?\d{2})(?!\d)")
_HANDLE = re.compile(r"(?<![\w@./])@[A-Za-z]\w{3,31}(?![\w@])")
_TOPICS = {
    Feature.MONEY: MONEY,
    Feature.DAILY_PAY: DAILY_PAY,
    Feature.CONTACT_CALL: CONTACT_CALL,
    Feature.JOB_LURE: JOB_LURE,
    Feature.CRYPTO_LURE: CRYPTO_LURE,
    Feature.GAMBLING_LURE: GAMBLING_LURE,
    Feature.ADULT_LURE: ADULT_LURE,
}
_HIDDEN_FROM = 3
_EMOJI_FROM, _EMOJI_SHARE = 5, 0.15
_CAPITALS_FROM, _CAPITALS_SHARE = 20, 0.6
_MAX_TEXT = 4096
"""Characters that are searched for topics: Telegram's longest text."""


def normalise_scored(message: GroupMessage) -> Normal:
    """Returns the text that the local score reads, in training and in serving: the words, then hidden link targets."""
    return normalise(cut_long(display_text(message)))


def extract_features(message: GroupMessage, normal: Normal) -> frozenset[str]:
    """Returns the risky features of a message's text, links and form.

    The local score is trained and asked with these: whatever Telegram marks as a link (domains, handles) is found in
    plain text alike, so that an example without entities has the features of the message that it was.
    """
    found: set[str] = set()
    _add_link_features(message, normal, found)
    text, folded = normal.text[:_MAX_TEXT], normal.folded[:_MAX_TEXT]
    found.update(feature for feature, pattern in _TOPICS.items() if pattern.search(folded))
    if message.is_forward:
        found.add(Feature.FORWARD)
    if message.via_bot:
        found.add(Feature.VIA_BOT)
    if _CRYPTO_ADDRESS.search(text):
        found.add(Feature.CRYPTO_ADDRESS)
    if _PHONE.search(text):
        found.add(Feature.PHONE)
    if _HANDLE.search(text):
        found.add(Feature.HANDLE)
    if normal.mixed_words:
        found.add(Feature.MIXED_SCRIPT)
    if normal.hidden >= _HIDDEN_FROM:
        found.add(Feature.HIDDEN)
    _add_form_features(text, found)
    return frozenset(found)


def _add_link_features(message: GroupMessage, normal: Normal, found: set[str]) -> None:
    for link in {*extract_links(message, normal), *find_bare_links(normal)}:
        if link.is_mention:
            # Found in the text as a handle.
            continue
        found.add(Feature.LINK)
        if link.is_telegram:
            found.add(Feature.TELEGRAM_LINK)
        if link.is_invite:
            found.add(Feature.INVITE_LINK)
        if link.host in SHORTENERS:
            found.add(Feature.SHORTENER)
        if "xn--" in link.host or re.fullmatch(r"[\d.]+|.*:.*", link.host):
            found.add(Feature.ODD_HOST)
    if message.buttons:
        found.add(Feature.BUTTON_LINK)


def _add_form_features(text: str, found: set[str]) -> None:
    emoji = sum(unicodedata.category(char) == "So" for char in text) if not text.isascii() else 0
    if emoji >= _EMOJI_FROM and emoji >= _EMOJI_SHARE * len(text.split()):
        found.add(Feature.MANY_EMOJI)
    letters = sum(map(str.isalpha, text))
    if letters >= _CAPITALS_FROM and sum(map(str.isupper, text)) >= _CAPITALS_SHARE * letters:
        found.add(Feature.MANY_CAPITALS)
