"""Extracts risky features from a message's form and topic. A feature sends a message to the judge, no more."""

import re
import unicodedata
from enum import StrEnum

from services.moderation.domain.incident import display_text
from services.moderation.domain.message import GroupMessage
from services.moderation.screening import topic_patterns as topics
from services.moderation.text.excerpt import cut_long
from services.moderation.text.links import extract_links, find_bare_links
from services.moderation.text.normalise import Normal, normalise


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
    Feature.MONEY: topics.MONEY,
    Feature.DAILY_PAY: topics.DAILY_PAY,
    Feature.CONTACT_CALL: topics.CONTACT_CALL,
    Feature.JOB_LURE: topics.JOB_LURE,
    Feature.CRYPTO_LURE: topics.CRYPTO_LURE,
    Feature.GAMBLING_LURE: topics.GAMBLING_LURE,
    Feature.ADULT_LURE: topics.ADULT_LURE,
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
