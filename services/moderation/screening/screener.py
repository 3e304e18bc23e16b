"""Screens a message without a model: rules, risky features, local score; decides whether the judge is asked."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from services.moderation.domain.incident import display_text
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.rule_set import RuleSet
from services.moderation.domain.thresholds import HIGH
from services.moderation.screening.features import RISKY, Feature, extract_features, normalise_scored
from services.moderation.screening.known_ham import KnownHam
from services.moderation.screening.rules import RuleEngine, RuleHit
from services.moderation.text.excerpt import cut_long
from services.moderation.text.normalise import Normal, letter_weight, normalise

SUSPICIOUS_NAME = 30
"""Local score from which a name is read by the judge; an ordinary one has 5 to 20."""
_WORD, _SIGNS = r"[^\W_]{1,24}(?:['’-][^\W_]{1,24})?", r"[^\w@:/$€£₽%+]"
_PLAIN_NAME = re.compile(rf"{_SIGNS}*{_WORD}(?:{_SIGNS}{{1,4}}{_WORD}){{0,2}}{_SIGNS}*")
"""One to three words, with hearts and flags around them."""
PROVEN_MESSAGES = 5
"""Meaningful messages of a newcomer that are judged in any case."""
PROVEN_SCORE = 30
"""Local score from which the judge still reads plain talk of a newcomer who has written enough, but not for a week."""
MEANINGFUL_LETTERS = 10
"""Letters and digits of a meaningful message; "hi" and "thanks!" establish no member and need no judge."""


class SpamScores(Protocol):
    """Scores messages locally."""

    async def score(self, group_id: int, normal: Normal, features: frozenset[str]) -> int:
        """Returns how much a message resembles spam, 0 to 100."""
        ...


class EscalationReason(StrEnum):
    """The reason why a message is sent to the judge."""

    REPORT = "report"
    EDIT = "edit"
    NEWCOMER = "newcomer"
    RISKY = "risky"
    RULE = "rule"
    SCORE = "score"


@dataclass(frozen=True, slots=True)
class ScreeningFacts:
    """The result of screening, as far as it decides about the judge.

    Args:
        has_content: whether there is text, a link, a button, a name or a quotation to judge.
        is_meaningful: whether it has enough letters, see `is_meaningful`.
        adds_link: an edit that adds a link target.
        breaks_rule: breaks a rule that is not decisive.
        score: local spam score, 0 to 100.
        shows_name: a first contact under a name that says more than a name.
        quotes_outside: quotes words of another chat.
        is_unproven: fewer than `PROVEN_MESSAGES` of the author's messages have passed.
    """

    has_content: bool
    is_meaningful: bool
    is_newcomer: bool
    is_reported: bool
    adds_link: bool
    breaks_rule: bool
    features: frozenset[str]
    score: int
    shows_name: bool = False
    quotes_outside: bool = False
    is_unproven: bool = True

    @property
    def is_risky(self) -> bool:
        """True if a feature suffices to ask the judge."""
        return not RISKY.isdisjoint(self.features)

    @property
    def is_risky_in_outage(self) -> bool:
        """True if a feature besides mixed scripts is risky: spelling alone is no evidence against an author."""
        return not (RISKY - {Feature.MIXED_SCRIPT}).isdisjoint(self.features)

    @property
    def escalation(self) -> EscalationReason | None:
        """The reason why the judge is asked; None if it is not."""
        if not self.has_content:
            return None
        if self.is_reported:
            return EscalationReason.REPORT
        if self.adds_link:
            return EscalationReason.EDIT
        if self.is_risky:
            return EscalationReason.RISKY
        if self.breaks_rule:
            return EscalationReason.RULE
        if self.score >= HIGH:
            return EscalationReason.SCORE
        # A newcomer's "hi" or sticker holds nothing to judge.
        says_much = self.is_meaningful and (self.is_unproven or self.score >= PROVEN_SCORE)
        is_worth_judging = self.is_newcomer and (
            says_much or bool(self.features) or self.shows_name or self.quotes_outside
        )
        return EscalationReason.NEWCOMER if is_worth_judging else None


@dataclass(frozen=True, slots=True)
class Screening:
    """A screened message.

    Args:
        own: the author's own words, normalised.
        hits: broken rules, decisive ones first.
    """

    own: Normal
    facts: ScreeningFacts
    hits: tuple[RuleHit, ...]


class Screener:
    """Screens messages."""

    def __init__(self, rules: RuleEngine, scores: SpamScores, known_ham: KnownHam) -> None:
        self._rules = rules
        self._scores = scores
        self._known_ham = known_ham

    async def screen(
        self,
        message: GroupMessage,
        rules: RuleSet,
        *,
        is_newcomer: bool,
        is_reported: bool,
        adds_link: bool,
        is_repeated: bool = False,
        is_first_contact: bool = False,
        is_unproven: bool = True,
    ) -> Screening:
        """Screens a message.

        At first contact the author's name is read, too.

        A repeated or reported message has been checked against the rules; they are skipped, since another check would
        report its flood again.
        """
        own = normalise(cut_long(message.text))
        # A forward without own words is judged by the forwarded text.
        shown = own if own.text else normalise(cut_long(message.forwarded))
        hits: tuple[RuleHit, ...] = ()
        if not (is_repeated or is_reported):
            hits = await self._rules.check(message, own, rules, is_newcomer=is_newcomer)
        scored = shown if display_text(message) in {message.text, message.forwarded} else normalise_scored(message)
        features = extract_features(message, scored)
        shows_name = is_first_contact and await self._is_telling_name(message)
        quotes_outside = message.quotes_outside and letter_weight(message.quoted) >= MEANINGFUL_LETTERS
        facts = ScreeningFacts(
            has_content=bool(shown.text or message.links or message.buttons or shows_name or quotes_outside),
            is_meaningful=is_meaningful(shown.text),
            is_newcomer=is_newcomer,
            is_reported=is_reported,
            adds_link=adds_link,
            breaks_rule=any(not hit.is_decisive for hit in hits),
            features=features,
            score=await self._scores.score(message.group_id, scored, features) if scored.text else 0,
            shows_name=shows_name,
            is_unproven=is_unproven,
            quotes_outside=quotes_outside,
        )
        return Screening(own, facts, hits)

    async def _is_telling_name(self, message: GroupMessage) -> bool:
        """Returns whether a name has more in it than a name: a handle, a price, a fourth word, or words of adverts."""
        name = normalise(message.author.name)
        if not name.text:
            return False
        if not _PLAIN_NAME.fullmatch(name.text):
            return True
        named = replace(message, text=message.author.name, links=(), buttons=(), is_forward=False, via_bot=None)
        return await self._scores.score(message.group_id, name, extract_features(named, name)) >= SUSPICIOUS_NAME

    async def is_known_ham(self, message: GroupMessage) -> bool:
        """Returns whether an admin marked this text as no spam."""
        return await self._known_ham.contains(message.group_id, display_text(message))


def is_meaningful(text: str) -> bool:
    """Returns whether a text has enough letters; a character of a script without spaces counts as two."""
    return letter_weight(text) >= MEANINGFUL_LETTERS
