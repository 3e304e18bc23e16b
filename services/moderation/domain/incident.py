"""Incidents: a finding about a message, the state of its enforcement, and the decision of an admin."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from services.moderation.domain.message import Author, GroupMessage
from services.moderation.domain.policy import MUTE, Plan, Sanction
from services.moderation.domain.verdict import Category


class Source(StrEnum):
    """The origin of a finding."""

    JUDGE = "judge"
    RULE = "rule"
    REPORT = "report"
    """Reports reached the group's threshold."""
    ADMIN = "admin"
    """An admin's `/spam`."""
    OUTAGE = "outage"
    """The local score alone, while there was no verdict."""
    REFUSED = "refused"
    """The providers' content filters refused the message."""
    MALFORMED = "malformed"
    """The model's answer about the message was no verdict."""
    PICTURE = "picture"
    """A model with vision, about a newcomer's picture."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """The outcome of screening or judging a message.

    Args:
        confidence: 0 to 100.
        detail: shown on the card: the broken rule, the number of reports, the admin.
    """

    category: Category
    confidence: int
    source: Source
    plan: Plan
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """An assessment of one version of a message, in the form in which it is stored.

    Args:
        features: risky features, from which the local score learns; for a picture also its name.
        until: end of a mute.
    """

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
class Tally:
    """The incidents on one card.

    Args:
        restricted: authors who were muted or banned.
        texts: distinct texts besides that of the first incident, some of them.
    """

    messages: int = 1
    authors: int = 1
    restricted: int = 0
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Incident:
    """A recorded finding and the progress of its enforcement.

    Args:
        lead_id: the incident with the card that shows this one, too; None for one with a card of its own.
        restriction: replaced by a mute or ban of the bot, see `ports.Restriction`; None until it was looked up.
        tally: filled in for cards only.
    """

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
    lead_id: int | None = None
    restriction: str | None = None
    tally: Tally = Tally()

    @property
    def has_acted(self) -> bool:
        """True if the bot itself deleted or sanctioned, beyond showing a card."""
        return not self.finding.dry_run and (
            self.finding.plan.delete or self.finding.plan.sanction is not Sanction.NONE
        )

    @property
    def is_deleted(self) -> bool:
        """True if its messages are deleted."""
        return self.deleted in {"done", "gone"}

    @property
    def has_restricted(self) -> bool:
        """True if the bot itself muted or banned the author for this incident."""
        return self.sanctioned == "done" or (self.sanctioned or "").startswith("muted")

    @property
    def is_resolved(self) -> bool:
        """True if an admin confirmed, banned or undid it."""
        return any(by is not None for by in (self.confirmed_by, self.banned_by, self.undone_by))


class Resolution(StrEnum):
    """The decision of an admin about an incident. Each takes effect once; after an undo none does."""

    CONFIRM = "confirm"
    BAN = "ban"
    UNDO = "undo"


def create_finding(
    message: GroupMessage,
    version: str,
    assessment: Assessment,
    features: frozenset[str],
    now: datetime,
    *,
    dry_run: bool,
) -> Finding:
    """Returns the finding to record; a mute counts from `now`."""
    return Finding(
        group_id=message.group_id,
        message_ids=message.message_ids,
        version=version,
        topic_id=message.topic_id,
        author=message.author,
        text=display_text(message),
        category=assessment.category,
        confidence=assessment.confidence,
        source=assessment.source,
        plan=assessment.plan,
        dry_run=dry_run,
        detail=assessment.detail,
        features=features,
        until=now + MUTE if assessment.plan.sanction is not Sanction.NONE else None,
    )


def display_text(message: GroupMessage) -> str:
    """Returns the text that cards show and the local score learns: the words, then link targets not among them."""
    words = message.text or message.forwarded
    targets = [link for link in dict.fromkeys((*message.links, *message.buttons)) if link not in words]
    return "\n".join(part for part in (words, *targets) if part)
