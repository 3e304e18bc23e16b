"""The rules that a group sets for itself, and what of a message breaks them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from redis.asyncio import Redis

from services.moderation.domain.message import GroupMessage
from services.moderation.domain.rule_set import LinkPolicy, RuleSet
from services.moderation.screening.banned_terms import Terms
from services.moderation.screening.rate_windows import RateWindows, Sighting
from services.moderation.text.links import Link, extract_links
from services.moderation.text.normalise import Normal, normalise

SHOWN = 60
"""Characters of a message's own that a detail repeats."""


class Rule(StrEnum):
    """The rules that a message can break."""

    BANNED = "banned"
    LINK = "link"
    FORWARD = "forward"
    MEDIA = "media"
    FLOOD = "flood"
    DUPLICATE = "duplicate"
    MIXED_SCRIPT = "mixed_script"


@dataclass(frozen=True, slots=True)
class RuleHit:
    """A rule that a message breaks.

    Args:
        rule: which.
        detail: what of the message breaks it: the rule's word, the link's host, a count. For admins only.
        decisive: whether the group's rule is enough to act upon; otherwise it is a reason to look closer.
    """

    rule: Rule
    detail: str
    decisive: bool


class RuleEngine:
    """Looks whether a message breaks its group's rules.

    Args:
        redis: a client with `decode_responses=True`, where replicas share what was seen lately; None where one is
            alone.
        prefix: what all keys begin with.
    """

    def __init__(self, redis: Redis | None, prefix: str) -> None:
        self._recent = RateWindows(redis, prefix)
        self._terms: dict[tuple[str, ...], Terms] = {}

    async def check(
        self, message: GroupMessage, normal: Normal, rules: RuleSet, *, is_newcomer: bool
    ) -> tuple[RuleHit, ...]:
        """What the message breaks, the decisive first.

        Args:
            message: a message, or a version of an edited one; the same one twice counts once.
            normal: its own text, normalised.
            rules: its group's.
            is_newcomer: whether what is forbidden to newcomers is forbidden to its author.
        """
        hits = [
            *self._banned(message, normal, rules),
            *_links(extract_links(message, normal), rules, is_newcomer=is_newcomer),
            *_kinds(message, rules, is_newcomer=is_newcomer),
            *await self._repeated(message, normal, rules),
        ]
        if rules.mixed_scripts and normal.mixed_words:
            hits.append(RuleHit(Rule.MIXED_SCRIPT, _shown(", ".join(normal.mixed_words)), decisive=False))
        return tuple(sorted(hits, key=lambda hit: not hit.decisive))

    def _banned(self, message: GroupMessage, normal: Normal, rules: RuleSet) -> Iterator[RuleHit]:
        if not rules.banned:
            return
        terms = self._terms_of(rules.banned)
        if term := terms.found_in(normal):
            yield RuleHit(Rule.BANNED, _shown(term), decisive=True)
        elif message.forwarded and (term := terms.found_in(normalise(message.forwarded))):
            # The author chose to show it here, yet the words are somebody else's: for a judge, or a person.
            yield RuleHit(Rule.BANNED, _shown(term), decisive=False)

    def _terms_of(self, banned: tuple[str, ...]) -> Terms:
        terms = self._terms.get(banned)
        if terms is None:
            if len(self._terms) >= _KEPT_LISTS:
                self._terms.clear()
            terms = self._terms[banned] = Terms(banned)
        return terms

    async def _repeated(self, message: GroupMessage, normal: Normal, rules: RuleSet) -> list[RuleHit]:
        if message.edited_at is not None or not (rules.flood or rules.duplicates):
            return []
        seen = await self._recent.see(_sighting(message, normal, rules))
        hits: list[RuleHit] = []
        if rules.flood and seen.by_author >= rules.flood.messages:
            detail = f"{seen.by_author} messages in {rules.flood.seconds} s"
            hits.append(RuleHit(Rule.FLOOD, detail, decisive=True))
        if rules.duplicates and seen.same_in_group >= rules.duplicates.times:
            is_own = seen.same_by_author >= rules.duplicates.times
            times = seen.same_by_author if is_own else seen.same_in_group
            detail = f"the same text {times} times in {rules.duplicates.seconds} s"
            # Several people who say the same are a raid, or people who congratulate somebody.
            hits.append(RuleHit(Rule.DUPLICATE, detail, decisive=is_own))
        return hits


_KEPT_LISTS = 1000


def _sighting(message: GroupMessage, normal: Normal, rules: RuleSet) -> Sighting:
    flood, duplicates = rules.flood, rules.duplicates
    digest = None
    if duplicates is not None and sum(map(str.isalnum, normal.folded)) >= duplicates.shortest:
        # The text itself is not kept, not even for the seconds of a window.
        digest = hashlib.blake2b(normal.folded.encode(), digest_size=12).hexdigest()
    return Sighting(
        group_id=message.group_id,
        author_id=message.author.id,
        message_id=message.message_id,
        at=message.sent_at.timestamp(),
        digest=digest,
        flood_s=flood.seconds if flood else 0,
        duplicates_s=duplicates.seconds if duplicates else 0,
    )


def _links(links: tuple[Link, ...], rules: RuleSet, *, is_newcomer: bool) -> Iterator[RuleHit]:
    if rules.links is LinkPolicy.ALL or (rules.links is LinkPolicy.NOT_FROM_NEWCOMERS and not is_newcomer):
        return
    for link in links:
        if not any(link.is_within(entry) for entry in rules.domains):
            path = link.path if link.is_telegram else ""
            yield RuleHit(Rule.LINK, _shown(link.host + path), decisive=True)
            return


def _kinds(message: GroupMessage, rules: RuleSet, *, is_newcomer: bool) -> Iterator[RuleHit]:
    if message.is_forward and rules.forwards.includes(is_newcomer=is_newcomer):
        yield RuleHit(Rule.FORWARD, "a forwarded message", decisive=True)
    forbidden = {*rules.media, *(rules.newcomer_media if is_newcomer else ())}
    if found := sorted(forbidden & set(message.media)):
        yield RuleHit(Rule.MEDIA, ", ".join(found), decisive=True)


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
