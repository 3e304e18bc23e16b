"""What a judge says about a message. There is no action in it: what follows is decided by the policy, in code."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_EVIDENCE = 500
"""Characters of evidence that are kept; what is longer is cut, and still has to be in the text."""


class Category(StrEnum):
    """What a message is."""

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
    """Where the trouble is: in the author's own words, in what they quote, or in how they present themselves."""

    AUTHOR = "author"
    QUOTED = "quoted"
    PROFILE = "profile"


SPAM = frozenset({Category.JOB_SCAM, Category.CRYPTO_SCAM, Category.GAMBLING, Category.ADULT, Category.PHISHING})
"""What nobody writes by mistake."""
EASILY_MISTAKEN = frozenset({Category.CHANNEL_PROMO, Category.FLOOD, Category.OFF_TOPIC, Category.INJECTION})
"""What an honest message is often taken for; injection too, since people talk about prompts."""


def _whole(value: object) -> object:
    """Round what a model gives as 92.5, and keep what overshoots within bounds."""
    return max(0, min(100, round(value))) if isinstance(value, int | float) else value


class Verdict(BaseModel):
    """What a model answers with."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    category: Category = Field(
        description="what the message is; ok if nothing is wrong with it, unsure if you cannot tell"
    )
    confidence: Annotated[int, BeforeValidator(_whole)] = Field(ge=0, le=100, description="how sure you are, 0 to 100")
    about: About = Field(
        default=About.AUTHOR,
        description="author: in the author's own words; quoted: only in what they quote; profile: in the name",
    )
    evidence: str | None = Field(
        default=None, description="the piece of the message that shows it, copied letter by letter; null for ok"
    )

    @property
    def is_spam(self) -> bool:
        """Whether it is spam of a kind that nobody writes by mistake."""
        return self.category in SPAM


class Evidence(StrEnum):
    """Where the piece of text that a verdict rests on was found."""

    OWN = "own"
    """In what the author wrote: text, links, buttons."""
    FORWARDED = "forwarded"
    """In a message that the author forwarded without a word of their own."""
    NAME = "name"
    """In the name that the author goes by."""
    MISSING = "missing"
    """Nowhere, or none was given: a person has to look."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, checked against the message, and where it comes from; tokens are 0 where it was in the cache."""

    verdict: Verdict
    evidence: Evidence
    provider: str
    model: str
    input_tokens: int = 0
    output_tokens: int = 0
    cached: bool = False


class Why(StrEnum):
    """Why there is no verdict."""

    OUTAGE = "outage"
    """Nobody answers: it is judged again later."""
    REFUSED = "refused"
    """The providers' content filters would not look at it: a person has to."""
    NO_CONSENT = "no_consent"
    """Only remote providers could judge, and the group has not agreed to that."""
    BUDGET = "budget"
    """The group has had its judgements of today."""
    REJECTED = "rejected"
    """The request was found at fault, so that asking again would not help."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """No verdict."""

    why: Why
    detail: str = ""


Judgement = Judged | Unjudged
