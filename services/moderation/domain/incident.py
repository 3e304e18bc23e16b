"""What was found about a message, in the form in which it is recorded."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.moderation.domain.message import Author, GroupMessage
from services.moderation.domain.policy import MUTE, Plan, Sanction
from services.moderation.domain.verdict import Category


class Source(StrEnum):
    """Who found it."""

    JUDGE = "judge"
    RULE = "rule"
    REPORT = "report"
    """Enough members reported it."""
    ADMIN = "admin"
    """An admin said `/spam`."""
    OUTAGE = "outage"
    """The local score alone, while nobody could judge."""
    REFUSED = "refused"
    """The providers' filters would not look at it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is to be recorded."""

    group_id: int
    message_ids: tuple[int, ...]
    version: str
    topic_id: int
    author: Author
    text: str
    category: Category
    confidence: int
    source: Source
    plan: Plan
    dry_run: bool
    detail: str = ""
    evidence: str | None = None
    provider: str | None = None
    features: frozenset[str] = frozenset()
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """What was found, and how far it has come."""

    id: int
    finding: Finding
    created_at: datetime
    sanctioned: str | None = None
    deleted: str | None = None
    card_chat_id: int | None = None
    card_message_id: int | None = None
    is_finished: bool = False
    is_erased: bool = False
    confirmed_by: str | None = None
    banned_by: str | None = None
    undone_by: str | None = None

    @property
    def has_acted(self) -> bool:
        """Whether the bot did more than to tell of it."""
        return not self.finding.dry_run and (
            self.finding.plan.delete or self.finding.plan.sanction is not Sanction.NONE
        )

    @property
    def is_deleted(self) -> bool:
        """Whether its messages are gone."""
        return self.deleted in {"done", "gone"}

    @property
    def is_resolved(self) -> bool:
        """Whether a person has said what it was."""
        return any(by is not None for by in (self.confirmed_by, self.banned_by, self.undone_by))


class Resolution(StrEnum):
    """What a person does with an incident; each is effective once, and nothing after an undo."""

    CONFIRM = "confirm"
    BAN = "ban"
    UNDO = "undo"


@dataclass(frozen=True, slots=True)
class Charge:
    """What is said of a message, by whom, and what is to follow.

    Args:
        category: what it is.
        confidence: how sure that is, 0 to 100.
        source: who says so.
        plan: what is to follow.
        detail: for the card: the rule, the number of reports, the admin.
    """

    category: Category
    confidence: int
    source: Source
    plan: Plan
    detail: str = ""


def create_finding(
    message: GroupMessage, version: str, charge: Charge, features: frozenset[str], now: datetime, *, dry_run: bool
) -> Finding:
    """The record of a charge.

    Args:
        message: what it is about.
        version: of the message.
        charge: what is said of it.
        features: its risky features, for the local score to learn by.
        now: when it was found; a mute counts from then.
        dry_run: whether nothing is to be done.
    """
    return Finding(
        group_id=message.group_id,
        message_ids=message.message_ids,
        version=version,
        topic_id=message.topic_id,
        author=message.author,
        text=shown_text(message),
        category=charge.category,
        confidence=charge.confidence,
        source=charge.source,
        plan=charge.plan,
        dry_run=dry_run,
        detail=charge.detail,
        features=features,
        until=now + MUTE if charge.plan.sanction is not Sanction.NONE else None,
    )


def shown_text(message: GroupMessage) -> str:
    """A message as its card shows it and as the local score learns it: its words, and where it leads."""
    words = message.text or message.forwarded
    targets = [link for link in dict.fromkeys((*message.links, *message.buttons)) if link not in words]
    return "\n".join(part for part in (words, *targets) if part)
