"""Checks a message against its group's rules: banned terms at word boundaries, links, forwards, repetition."""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from cachetools import LRUCache

from core.shortening import shorten
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.settings import LinkPolicy, RuleSet
from services.moderation.screening.rate_windows import Arrival, RateWindows
from services.moderation.text.invisible import character_script
from services.moderation.text.links import Link, extract_links
from services.moderation.text.normalise import Normal, normalise

MAX_DETAIL = 60
"""Characters of a detail, which may quote the message."""
CACHED_LISTS = 1000
COMMAND = re.compile(r"/\w{1,64}(?:@\w{1,64})?(?:\s|$)")
THANKS = re.compile(
    r"(?:@\w+[\s,]*)?(?:(?:\w+\s+){0,2}(?:спасиб\w*|спс|благодар[юя]|дякую|рахмет|рахмат|сенкс|gracias|obrigad[oa]"
    r"|dank|merci|hvala)|(?:many\s+)?thank(?:s| you)|thx|tnx|tysm|ty|danke|grazie|bedankt|tack|kiitos"
    r"|te[sş]ekk[uü]r\w*|dzi[eę]kuj[eę]|d[eě]kuji|mul[tț]umesc|k[oö]sz[oö]n[oö]m|ευχαριστ[ωώ]|terima kasih"
    r"|c[aả]m [oơ]n)\b.{0,24}|(?:谢谢|謝謝|感谢|ありがとう|감사합니다|고마워|شكرا|תודה|धन्यवाद).{0,24}"
)
"""Short thanks as a whole message, folded: one member may thank several others in a row."""
_WITHOUT_SPACES = frozenset({"HAN", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
_END_OF_BMP = 0x10000
"""Beyond it only historic scripts have marks, and a character class is no longer a table lookup."""


class BannedTerms:
    """A parsed list of banned terms.

    Args:
        terms: words or phrases; `stem*` matches words that start with it, `*stem` words that end with it. Case,
            look-alike letters and separators between words are ignored. Terms without letters (an emoji, `$$$`) match
            anywhere.
    """

    def __init__(self, terms: Iterable[str]) -> None:
        self._words: dict[str, str] = {}
        self._symbols: dict[str, str] = {}
        for term in terms:
            core = term.strip()
            begins, ends = not core.startswith("*"), not core.endswith("*")
            normal = normalise(core.strip("*"))
            for spelled in _spellings(normal):
                if words := _split_words(spelled):
                    before = " " if begins and character_script(words[0]) not in _WITHOUT_SPACES else ""
                    after = " " if ends and character_script(words[-1]) not in _WITHOUT_SPACES else ""
                    self._words.setdefault(f"{before}{words}{after}", term)
                elif spelled:
                    self._symbols.setdefault(spelled, term)

    def find(self, normal: Normal) -> str | None:
        """Returns the first term that a message contains, as spelled in the list."""
        spellings = _spellings(normal)
        padded = [f" {_split_words(spelling)} " for spelling in spellings]
        for needle, term in self._words.items():
            if any(needle in text for text in padded):
                return term
        return next((term for needle, term in self._symbols.items() if any(needle in text for text in spellings)), None)


def _spellings(normal: Normal) -> set[str]:
    """Returns the folded and the written text: a word that only resembles another script matches as itself, too."""
    return {normal.folded, " ".join(normal.text.casefold().replace("ё", "е").split())}


def _split_words(text: str) -> str:
    """Returns the words of a text, separated by single spaces."""
    return _separators().sub(" ", text).strip()


@cache
def _separators() -> re.Pattern[str]:
    r"""Returns a pattern for word separators. Marks are none, although `\w` lacks them: Indic vowels are marks."""
    marks = "".join(char for char in map(chr, range(_END_OF_BMP)) if unicodedata.category(char)[0] == "M")
    return re.compile(f"(?:_|[^\\w{marks}])+")


class Rule(StrEnum):
    """A rule that a message can break."""

    BANNED = "banned"
    LINK = "link"
    FORWARD = "forward"
    MEDIA = "media"
    FLOOD = "flood"
    DUPLICATE = "duplicate"
    MIXED_SCRIPT = "mixed_script"


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A broken rule.

    Args:
        detail: the banned term, the link's host or a count. For admins only.
        is_decisive: whether it suffices for an action; otherwise it sends the message to the judge.
    """

    rule: Rule
    detail: str
    is_decisive: bool


class RuleEngine:
    """Checks messages. Keeps the parsed term lists of recently active groups."""

    def __init__(self, windows: RateWindows) -> None:
        self._windows = windows
        self._terms: LRUCache[tuple[str, ...], BannedTerms] = LRUCache(CACHED_LISTS)

    async def check(
        self, message: GroupMessage, normal: Normal, rules: RuleSet, *, is_newcomer: bool
    ) -> tuple[RuleHit, ...]:
        """Returns the broken rules, decisive ones first. Idempotent: a message counts once in its windows.

        `normal` is the author's own text, without quoted and forwarded ones.
        """
        hits = [
            *self._check_terms(message, normal, rules),
            *_check_links(extract_links(message, normal), rules, is_newcomer=is_newcomer),
            *_check_media(message, rules, is_newcomer=is_newcomer),
            *await self._check_repetition(message, normal, rules, is_newcomer=is_newcomer),
        ]
        if rules.mixed_scripts and normal.mixed_words:
            hits.append(
                RuleHit(Rule.MIXED_SCRIPT, shorten(", ".join(normal.mixed_words), MAX_DETAIL), is_decisive=False)
            )
        return tuple(sorted(hits, key=lambda hit: not hit.is_decisive))

    def _check_terms(self, message: GroupMessage, normal: Normal, rules: RuleSet) -> Iterator[RuleHit]:
        if not rules.banned:
            return
        terms = self._parse_terms(rules.banned)
        if term := terms.find(normal):
            yield RuleHit(Rule.BANNED, shorten(term, MAX_DETAIL), is_decisive=True)
        elif message.forwarded and (term := terms.find(normalise(message.forwarded))):
            # The author chose to forward it, but did not write it: the judge decides.
            yield RuleHit(Rule.BANNED, shorten(term, MAX_DETAIL), is_decisive=False)

    def _parse_terms(self, banned: tuple[str, ...]) -> BannedTerms:
        terms = self._terms.get(banned)
        if terms is None:
            terms = self._terms[banned] = BannedTerms(banned)
        return terms

    async def _check_repetition(
        self, message: GroupMessage, normal: Normal, rules: RuleSet, *, is_newcomer: bool
    ) -> list[RuleHit]:
        """Decides about newcomers only; a member's flood is a question to the judge."""
        if not (rules.flood or rules.duplicates) or _is_exempt_from_repetition(message, normal):
            return []
        counts = await self._windows.add(_to_arrival(message, normal, rules))
        hits: list[RuleHit] = []
        if rules.flood and counts.by_author >= rules.flood.messages:
            detail = f"{counts.by_author} messages in {rules.flood.seconds} s"
            hits.append(RuleHit(Rule.FLOOD, detail, is_decisive=is_newcomer))
        if rules.duplicates and counts.same_in_group >= rules.duplicates.times:
            is_own = counts.same_by_author >= rules.duplicates.times
            times = counts.same_by_author if is_own else counts.same_in_group
            detail = f"the same text {times} times in {rules.duplicates.seconds} s"
            # The same text by several members can be a raid, or congratulations.
            hits.append(RuleHit(Rule.DUPLICATE, detail, is_decisive=is_own and is_newcomer))
        return hits


def _is_exempt_from_repetition(message: GroupMessage, normal: Normal) -> bool:
    """Returns whether a message counts in no window: edits, replies, commands of bots and thanks."""
    return (
        message.edited_at is not None
        or message.reply_to is not None
        or COMMAND.match(message.text) is not None
        or (not message.links and THANKS.fullmatch(normal.folded) is not None)
    )


def _to_arrival(message: GroupMessage, normal: Normal, rules: RuleSet) -> Arrival:
    flood, duplicates = rules.flood, rules.duplicates
    digest = None
    if duplicates is not None and sum(map(str.isalnum, normal.folded)) >= duplicates.shortest:
        # Windows hold digests, never the text itself.
        digest = hashlib.blake2b(normal.folded.encode(), digest_size=12).hexdigest()
    return Arrival(
        group_id=message.group_id,
        author_id=message.author.id,
        message_id=message.message_id,
        is_burst=bool(message.media) or message.is_forward,
        at=message.sent_at.timestamp(),
        digest=digest,
        flood_s=flood.seconds if flood else 0,
        duplicates_s=duplicates.seconds if duplicates else 0,
    )


def _check_links(links: tuple[Link, ...], rules: RuleSet, *, is_newcomer: bool) -> Iterator[RuleHit]:
    if rules.links is LinkPolicy.ALL or (rules.links is LinkPolicy.NOT_FROM_NEWCOMERS and not is_newcomer):
        return
    for link in links:
        if link.is_mention:
            continue
        if not any(link.is_within(entry) for entry in rules.domains):
            path = link.path if link.is_telegram else ""
            yield RuleHit(Rule.LINK, shorten(link.host + path, MAX_DETAIL), is_decisive=True)
            return


def _check_media(message: GroupMessage, rules: RuleSet, *, is_newcomer: bool) -> Iterator[RuleHit]:
    if message.is_forward and rules.forwards.includes(is_newcomer=is_newcomer):
        yield RuleHit(Rule.FORWARD, "a forwarded message", is_decisive=is_newcomer)
    forbidden = {*rules.media, *(rules.newcomer_media if is_newcomer else ())}
    if found := sorted(forbidden & set(message.media)):
        yield RuleHit(Rule.MEDIA, ", ".join(found), is_decisive=True)
