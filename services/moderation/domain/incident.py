"""What was found about a message, in the form in which it is recorded."""

from dataclasses import dataclass
from datetime import datetime

from services.moderation.domain.message import GroupMessage
from services.moderation.domain.policy import MUTE, Plan, Sanction
from services.moderation.domain.verdict import Category
from services.moderation.records.incidents import Finding, Source


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
