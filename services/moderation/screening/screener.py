"""Screens a message without a model: rules, risky features, local score; decides whether the judge is asked."""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from services.moderation.domain.incident import display_text
from services.moderation.domain.message import AuthorKind, GroupMessage
from services.moderation.domain.policy import HIGH, VERY_HIGH
from services.moderation.domain.settings import RuleSet
from services.moderation.screening.exemptions import KnownHam
from services.moderation.screening.features import RISKY, Feature, Signal, extract_features, normalise_scored
from services.moderation.screening.rules import RuleEngine, RuleHit
from services.moderation.text.excerpt import cut_long
from services.moderation.text.normalise import Normal, letter_weight, normalise

SUSPICIOUS_NAME = 30
"""Minimum local score of a name sent to the judge; ordinary names have 5 to 20."""
_WORD, _SIGNS = r"[^\W_]{1,24}(?:['’-][^\W_]{1,24})?", r"[^\w@:/$€£₽%+]"
_PLAIN_NAME = re.compile(rf"{_SIGNS}*{_WORD}(?:{_SIGNS}{{1,4}}{_WORD}){{0,2}}{_SIGNS}*")
"""One to three words, with hearts and flags around them."""
SIGNAL_POINTS = 20
"""Added to the local score for each signal, below `VERY_HIGH`: in an outage a signal alone deletes nothing."""
PROVEN_MESSAGES = 5
"""Number of a newcomer's meaningful messages that are always judged."""
PROVEN_SCORE = 30
"""Local score from which the judge still reads plain talk of a newcomer who has written enough, but not for a week."""
MEANINGFUL_LETTERS = 10
"""Letters and digits of a meaningful message; "hi" and "thanks!" establish no member and need no judge."""


class SpamScores(Protocol):
    """Scores messages locally."""

    async def score(self, group_id: int, normal: Normal, features: frozenset[str]) -> int:
        """Returns how much a message resembles spam, 0 to 100."""
        ...


class Accounts(Protocol):
    """Knows accounts of spammers."""

    async def is_listed(self, account_id: int) -> bool:
        """Returns whether a public list of spammers has an account."""
        ...


class Campaigns(Protocol):
    """Remembers adverts over groups."""

    async def is_known(self, text: str) -> bool:
        """Returns whether a text belongs to a campaign that another group has seen."""
        ...

    async def remember(self, text: str) -> None:
        """Remembers an advert."""
        ...


class EscalationReason(StrEnum):
    """The reason why a message is sent to the judge."""

    REPORT = "report"
    EDIT = "edit"
    NEWCOMER = "newcomer"
    RISKY = "risky"
    SIGNAL = "signal"
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
        score: local spam score with the points of the signals, 0 to 100.
        signals: evidence from outside the message.
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
    signals: frozenset[Signal] = frozenset()

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
        if self.signals:
            return EscalationReason.SIGNAL
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
    """Screens messages.

    Args:
        accounts: public lists of spammers; None where the operator asks none.
    """

    def __init__(
        self,
        rules: RuleEngine,
        scores: SpamScores,
        known_ham: KnownHam,
        campaigns: Campaigns,
        accounts: Accounts | None = None,
    ) -> None:
        self._rules = rules
        self._scores = scores
        self._known_ham = known_ham
        self._campaigns = campaigns
        self._accounts = accounts

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
        has_content = bool(shown.text or message.links or message.buttons or shows_name or quotes_outside)
        score = await self._scores.score(message.group_id, scored, features) if scored.text else 0
        signals: frozenset[Signal] = frozenset()
        if has_content and (is_newcomer or features):
            signals = await self._find_signals(message, is_newcomer=is_newcomer)
        facts = ScreeningFacts(
            has_content=has_content,
            is_meaningful=is_meaningful(shown.text),
            is_newcomer=is_newcomer,
            is_reported=is_reported,
            adds_link=adds_link,
            breaks_rule=any(not hit.is_decisive for hit in hits),
            features=features,
            score=max(score, min(score + SIGNAL_POINTS * len(signals), VERY_HIGH - 1)),
            signals=signals,
            shows_name=shows_name,
            is_unproven=is_unproven,
            quotes_outside=quotes_outside,
        )
        return Screening(own, facts, hits)

    async def _find_signals(self, message: GroupMessage, *, is_newcomer: bool) -> frozenset[Signal]:
        """Returns the evidence from outside; accounts are looked up for newcomers only."""
        found: set[Signal] = set()
        if await self._campaigns.is_known(display_text(message)):
            found.add(Signal.CAMPAIGN)
        accounts = self._accounts if is_newcomer and message.author.kind is AuthorKind.USER else None
        if accounts is not None and await accounts.is_listed(message.author.id):
            found.add(Signal.LISTED)
        return frozenset(found)

    async def remember_campaign(self, message: GroupMessage) -> None:
        """Remembers a message that the judge found to be spam: the operator's other groups have it judged."""
        await self._campaigns.remember(display_text(message))

    async def _is_telling_name(self, message: GroupMessage) -> bool:
        """Returns whether a name has more in it than a name: a handle, a price, a fourth word, or words of adverts."""
        name = normalise(message.author.name)
        if not name.text:
            return False
        if not is_plain_name(message.author.name):
            return True
        named = replace(message, text=message.author.name, links=(), buttons=(), is_forward=False, via_bot=None)
        features = extract_features(named, name)
        if not RISKY.isdisjoint(features):
            return True
        return await self._scores.score(message.group_id, name, features) >= SUSPICIOUS_NAME

    async def is_known_ham(self, message: GroupMessage) -> bool:
        """Returns whether an admin marked this text as no spam."""
        return await self._known_ham.contains(message.group_id, display_text(message))

    async def is_known_picture(self, message: GroupMessage) -> bool:
        """Returns whether an admin marked each picture of a message as no spam."""
        for picture in message.pictures:
            if not await self._known_ham.contains(message.group_id, picture.known_as):
                return False
        return bool(message.pictures)


def is_plain_name(name: str) -> bool:
    """Returns whether a name is one to three words, and no handle, price or address."""
    return _PLAIN_NAME.fullmatch(normalise(name).text) is not None


def is_meaningful(text: str) -> bool:
    """Returns whether a text has enough letters; a character of a script without spaces counts as two."""
    return letter_weight(text) >= MEANINGFUL_LETTERS
