"""Verdicts of the judge. They carry no action: the policy, in code, decides on one.

The docstrings of `Category`, `About` and `Verdict` are part of the JSON schema that the model gets. They are prompt
text: changing one changes verdicts.
"""

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_EVIDENCE = 500
"""Characters of evidence that are kept. Longer evidence is truncated, and must still occur in the text."""


class Category(StrEnum):
    """The category of a message."""

    OK = "ok"
    JOB_SCAM = "job_scam"
    CRYPTO_SCAM = "crypto_scam"
    GAMBLING = "gambling"
    ADULT = "adult"
    PHISHING = "phishing"
    CHANNEL_PROMO = "channel_promo"
    FLOOD = "flood"
    TOXIC = "toxic"
    THREAT = "threat"
    OFF_TOPIC = "off_topic"
    INJECTION = "injection"
    UNSURE = "unsure"


class About(StrEnum):
    """The part of a message that a verdict is about: the author's own words, a quotation, or the author's profile."""

    AUTHOR = "author"
    QUOTED = "quoted"
    PROFILE = "profile"


SPAM = frozenset({Category.JOB_SCAM, Category.CRYPTO_SCAM, Category.GAMBLING, Category.ADULT, Category.PHISHING})
"""Categories with no innocent reading."""
EASILY_MISTAKEN = frozenset({Category.CHANNEL_PROMO, Category.FLOOD, Category.OFF_TOPIC, Category.INJECTION})
"""Categories with frequent false positives; injection too, since people talk about prompts."""


def _to_word(value: object) -> object:
    """Reads a word of the schema in any case, with spaces or hyphens: `Job scam`, `CRYPTO-SCAM`."""
    return re.sub(r"[\s-]+", "_", value.strip().lower()) if isinstance(value, str) else value


_PER_CENT = re.compile(r"\s*(?:%|per\s?cent|процент\w*|/\s*100)$", re.IGNORECASE)


def _to_percent(value: object) -> object:
    """Reads a fraction (0.97), a rounded percentage (92.5) and a number in a string ("97", "97 %", "97/100").

    Raises:
        ValueError: the value is negative, infinite or no number.
    """
    is_percentage = False
    if isinstance(value, str):
        digits = _PER_CENT.sub("", value.strip())
        is_percentage = digits != value.strip() or digits.isdecimal()
        value = float(digits.replace(",", "."))
    if isinstance(value, bool) or (isinstance(value, float) and not 0 <= value < math.inf):
        msg = "the confidence is no number from 0 to 100"
        raise ValueError(msg)
    if not isinstance(value, float):
        return value
    return round(value * 100) if 0 < value <= 1 and not is_percentage else round(value)


class Verdict(BaseModel):
    """The answer of a model."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    category: Annotated[Category, BeforeValidator(_to_word)] = Field(
        description="what the message is; ok if nothing is wrong with it, unsure if you cannot tell"
    )
    confidence: Annotated[int, BeforeValidator(_to_percent)] = Field(
        ge=0, le=100, description="how sure you are, 0 to 100"
    )
    about: Annotated[About, BeforeValidator(_to_word)] = Field(
        default=About.AUTHOR,
        description="author: in the author's own words; quoted: only in what they quote; profile: in the name",
    )
    evidence: str | None = Field(
        default=None, description="the piece of the message that shows it, copied letter by letter; null for ok"
    )

    @property
    def is_spam(self) -> bool:
        """True if its category has no innocent reading."""
        return self.category in SPAM


class Evidence(StrEnum):
    """Where the text that a verdict quotes was found."""

    OWN = "own"
    """In the author's text, links or buttons."""
    FORWARDED = "forwarded"
    """In a forwarded message without words of the author's own."""
    NAME = "name"
    """In the author's display name."""
    QUOTED = "quoted"
    """In a quotation from another chat, which a newcomer may have chosen for its advert."""
    MISSING = "missing"
    """Not found, or none given: an admin has to check."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict checked against the message. Tokens are 0 for a cached one."""

    verdict: Verdict
    evidence: Evidence
    provider: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    is_cached: bool = False


class NoVerdictReason(StrEnum):
    """The reason why there is no verdict."""

    OUTAGE = "outage"
    """No provider answered; the message is judged again later."""
    REFUSED = "refused"
    """The providers' content filters refused it; an admin has to check."""
    NO_CONSENT = "no_consent"
    """Only remote providers could judge, and the group has not agreed to them."""
    BUDGET = "budget"
    """The group's judgements of today are used up."""
    AUTHOR_BUDGET = "author_budget"
    """The author has used up one member's part of the group's judgements of today."""
    MALFORMED = "malformed"
    """The answer is no verdict; an admin has to check."""
    REJECTED = "rejected"
    """The request is invalid for every provider; a retry would not help."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """No verdict, and the reason."""

    reason: NoVerdictReason
    detail: str = ""


Judgement = Judged | Unjudged
