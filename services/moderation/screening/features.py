"""What is risky about a message, told by its form and by what it speaks of. A feature routes; it decides nothing."""

import re
import unicodedata
from enum import StrEnum

from services.moderation.domain.message import GroupMessage
from services.moderation.screening import topic_patterns as lures
from services.moderation.text.links import extract_links
from services.moderation.text.normalise import Normal


class Feature(StrEnum):
    """A risky feature; the value is what the local score knows it by."""

    LINK = "link"
    TELEGRAM_LINK = "telegram_link"
    INVITE_LINK = "invite_link"
    SHORTENER = "shortener"
    ODD_HOST = "odd_host"
    """An international name, or a bare address."""
    BUTTON_LINK = "button_link"
    FORWARD = "forward"
    VIA_BOT = "via_bot"
    CRYPTO_ADDRESS = "crypto_address"
    PHONE = "phone"
    HANDLE = "handle"
    CONTACT_CALL = "contact_call"
    """Asks to be written to in private."""
    MONEY = "money"
    DAILY_PAY = "daily_pay"
    """Money by the day, hour or week."""
    MIXED_SCRIPT = "mixed_script"
    HIDDEN = "hidden"
    MANY_EMOJI = "many_emoji"
    MANY_CAPITALS = "many_capitals"
    ADULT_LURE = "adult_lure"
    JOB_LURE = "job_lure"
    CRYPTO_LURE = "crypto_lure"
    GAMBLING_LURE = "gambling_lure"


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
"""Those that are worth a judge's look by themselves; the others are everyday talk and only weigh in the score."""

SHORTENERS = frozenset(
    {"bit.ly", "tinyurl.com", "goo.gl", "t.co", "is.gd", "cutt.ly", "ow.ly", "rb.gy", "shorturl.at", "clck.ru",
     "vk.cc", "u.to", "tiny.cc", "rebrand.ly", "s.id", "lnkd.in", "buff.ly", "t.ly", "bl.ink", "qps.ru", "goo.su"}
)  # fmt: skip

_CRYPTO_ADDRESS = re.compile(
    r"(?<![0-9A-Za-z])(?:0x[0-9a-fA-F]{40}|bc1[02-9ac-hj-np-z]{25,62}|[13][1-9A-HJ-NP-Za-km-z]{25,34}"
    r"|T[1-9A-HJ-NP-Za-km-z]{33}|(?:EQ|UQ)[0-9A-Za-z_-]{46})(?![0-9A-Za-z])"
)
"""Ethereum and its like, Bitcoin (both forms), Tron, TON."""
_PHONE = re.compile(r"(?<![\w.])(?:\+\d[\d ()\-]{8,17}\d|8[ (-]{0,2}9\d{2}[ )-]{0,2}\d{3}[ -]?\d{2}[ -]?\d{2})(?!\d)")
_HANDLE = re.compile(r"(?<![\w@./])@[A-Za-z]\w{3,31}(?![\w@])")
_TOPICS = {
    Feature.MONEY: lures.MONEY,
    Feature.DAILY_PAY: lures.DAILY_PAY,
    Feature.CONTACT_CALL: lures.CONTACT_CALL,
    Feature.JOB_LURE: lures.JOB_LURE,
    Feature.CRYPTO_LURE: lures.CRYPTO_LURE,
    Feature.GAMBLING_LURE: lures.GAMBLING_LURE,
    Feature.ADULT_LURE: lures.ADULT_LURE,
}
_HIDDEN_FROM = 3
_EMOJI_FROM, _EMOJI_SHARE = 5, 0.15
_CAPITALS_FROM, _CAPITALS_SHARE = 20, 0.6
_READ = 4096
"""Characters that are looked at for what a message speaks of; Telegram's longest text."""


def features(message: GroupMessage, normal: Normal) -> frozenset[str]:
    """The risky features of a message: of the author's words, its links and its form."""
    found: set[str] = set()
    _of_links(message, normal, found)
    text, folded = normal.text[:_READ], normal.folded[:_READ]
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
    _of_form(text, found)
    return frozenset(found)


def _of_links(message: GroupMessage, normal: Normal, found: set[str]) -> None:
    for link in extract_links(message, normal):
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


def _of_form(text: str, found: set[str]) -> None:
    pictures = sum(unicodedata.category(char) == "So" for char in text) if not text.isascii() else 0
    if pictures >= _EMOJI_FROM and pictures >= _EMOJI_SHARE * len(text.split()):
        found.add(Feature.MANY_EMOJI)
    letters = sum(map(str.isalpha, text))
    if letters >= _CAPITALS_FROM and sum(map(str.isupper, text)) >= _CAPITALS_SHARE * letters:
        found.add(Feature.MANY_CAPITALS)
