"""Registry of personal data: the effect of `/forget` on every table, Redis key and file.

A table, a key or a file that is not listed here fails a test, so that none is added without a decision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement

from core.db.job_tables import ScheduleRow, SentMessageRow, ToolCallRow, ToolGrantRow, UserZoneRow
from core.db.moderation_tables import (
    ModerationEntryRow,
    ModerationGroupRow,
    ModerationIncidentRow,
    ModerationMemberRow,
    ModerationReportRow,
    ModerationWarningRow,
    ProcessedVersionRow,
)
from core.db.operator_tables import BanRow, BroadcastRow, ConfigRevisionRow
from core.db.tables import ApiTokenRow, LanguageRow, NoteRow, PreferenceRow, ThreadRow
from core.db.usage_tables import BudgetLimitRow, UsageRequestRow
from core.messages import ChatRef, Surface, UserRef, chat_ref, user_ref

ANYONE = "someone"
"""Replaces the name of an erased person."""


@dataclass(frozen=True, slots=True)
class Person:
    """The person to erase.

    Args:
        names: the full name, then the others: first name, `@username`.
        alias: number in place of the id in records that stay, by a keyed hash; no id of Telegram's is as large.
    """

    surface: Surface
    user_id: int
    names: tuple[str, ...]
    alias: int

    @property
    def user(self) -> UserRef:
        """The person as usage and budgets name them."""
        return user_ref(self.surface, self.user_id)

    @property
    def chat(self) -> ChatRef:
        """The private chat with the bot, which has the id of the person."""
        return chat_ref(self.surface, self.user_id)


@dataclass(frozen=True, slots=True)
class Deleted:
    """Rows of the person are deleted."""

    holds: str
    where: Callable[[Person], ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Changed:
    """Rows stay and lose the person."""

    holds: str
    where: Callable[[Person], ColumnElement[bool]]
    values: Callable[[Person], Mapping[str, Any]]  # Any: values of several columns


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Rows are read and changed one by one, by the function of `erasure.py` that is named after the table."""

    holds: str


@dataclass(frozen=True, slots=True)
class Cascades:
    """Rows are deleted with those of another table, by a foreign key."""

    holds: str
    table: str


@dataclass(frozen=True, slots=True)
class Impersonal:
    """Holds nothing about a person, or names people by keyed hashes only."""

    holds: str


Rule = Deleted | Changed | Rewritten | Cascades | Impersonal


TABLES: Mapping[str, Sequence[Rule]] = {
    # Conversations
    "threads": (
        Deleted(
            "conversations of the private chat",
            lambda who: (ThreadRow.surface == who.surface) & (ThreadRow.chat_id == who.user_id),
        ),
    ),
    "turns": (
        Cascades("messages and answers of the private chat", "threads"),
        Rewritten("in groups: messages stay, without the name, the id, and the data of tools"),
    ),
    "thread_memories": (
        Cascades("summaries of the private chat", "threads"),
        Rewritten("in groups: summaries stay, without the name"),
    ),
    "attachments": (
        Cascades("files of the private chat", "turns"),
        Rewritten("in groups: files that the person sent are deleted"),
    ),
    "answer_messages": (Cascades("numbers of messages with answers", "turns"),),
    "pending_sends": (Cascades("numbers of messages that are being sent", "turns"),),
    "notes": (Deleted("notes about the person, in every chat", lambda who: NoteRow.user_id == who.user_id),),
    "preferences": (
        Deleted(
            "model, consent, streaming and persona of the private chat", lambda who: PreferenceRow.scope == who.chat
        ),
    ),
    "languages": (Deleted("language that the person chose", lambda who: LanguageRow.owner == who.user),),
    "schedules": (
        Deleted(
            "reminders and scheduled prompts of the person, in every chat",
            lambda who: (ScheduleRow.surface == who.surface) & (ScheduleRow.user_id == who.user_id),
        ),
    ),
    "user_zones": (Deleted("time zone that the person chose", lambda who: UserZoneRow.user == who.user),),
    "tool_calls": (
        Deleted(
            "calls of tools that the person asked for, of a week",
            lambda who: (ToolCallRow.surface == who.surface) & (ToolCallRow.user_id == who.user_id),
        ),
    ),
    "tool_grants": (Deleted("tools that the person allowed for good", lambda who: ToolGrantRow.user == who.user),),
    # Usage
    "usage_requests": (
        Changed(
            "requests of 90 days stay, without the person",
            lambda who: UsageRequestRow.speaker == who.user,
            lambda _: {"speaker": None},
        ),
        Changed("and without the private chat", lambda who: UsageRequestRow.chat == who.chat, lambda _: {"chat": None}),
    ),
    "usage_days": (Rewritten("sums of a day are added to those without a person"),),
    "budget_limits": (
        Changed(
            "budgets that an operator set stay under a keyed hash, without the name",
            lambda who: BudgetLimitRow.label.in_((f"user:{who.user}", f"chat:{who.chat}")),
            lambda _: {"label": None},
        ),
    ),
    "budget_days": (Impersonal("spending of three days, under a keyed hash"),),
    "budget_holds": (Impersonal("spending of running requests, under a keyed hash"),),
    "secret_keys": (Impersonal("the key of the keyed hashes"),),
    # The inbox
    "said": (Deleted("numbers of messages to the private chat", lambda who: SentMessageRow.chat_id == who.user_id),),
    "album_parts": (Rewritten("messages of albums of two days"),),
    "dead_letters": (Rewritten("messages that could not be handled"),),
    "job_attempts": (Impersonal("numbers of updates"),),
    "replicas": (Impersonal("processes"),),
    # Operators
    "audit": (Rewritten("acts stay, without the name, under an alias"),),
    "api_tokens": (
        Changed(
            "who made a token becomes an alias",
            lambda who: ApiTokenRow.created_by == who.user_id,
            lambda who: {"created_by": who.alias},
        ),
    ),
    "config_revisions": (
        Changed(
            "who changed the configuration becomes an alias",
            lambda who: ConfigRevisionRow.actor_id == who.user_id,
            lambda who: {"actor_id": who.alias},
        ),
    ),
    "config_values": (Impersonal("settings of providers"),),
    "bans": (
        Changed(
            "a ban stays under a keyed hash, without the number and the reason",
            lambda who: BanRow.label == who.user,
            lambda _: {"label": None, "reason": None},
        ),
        Changed(
            "the operator who banned becomes an alias",
            lambda who: BanRow.banned_by == who.user_id,
            lambda who: {"banned_by": who.alias},
        ),
    ),
    "broadcasts": (
        Changed(
            "messages of operators to everyone stay, their author becomes an alias",
            lambda who: BroadcastRow.actor_id == who.user_id,
            lambda who: {"actor_id": who.alias, "card_chat_id": None, "card_message_id": None},
        ),
        Changed(
            "a running one goes on after the chat",
            lambda who: BroadcastRow.last_chat_id == who.user_id,
            lambda who: {"last_chat_id": who.user_id - 1},
        ),
    ),
    "comparisons": (Impersonal("votes about two models, under a keyed hash"),),
    "answer_votes": (Impersonal("thumbs under answers, under a keyed hash"),),
    "provider_figures": (Impersonal("sums of providers"),),
    "provider_spans": (Impersonal("states of providers"),),
    "embedding_spaces": (Impersonal("models"),),
    # Moderation: what a group did stays with the group, under an alias
    "moderation_groups": (
        Changed(
            "cards of a group go to the group again",
            lambda who: ModerationGroupRow.cards_to == who.user_id,
            lambda _: {"cards_to": None},
        ),
    ),
    "moderation_members": (
        Deleted("number of messages in a group", lambda who: ModerationMemberRow.member_id == who.user_id),
    ),
    "moderation_messages": (
        Changed(
            "checksums of messages of 7 days stay, without the author",
            lambda who: ProcessedVersionRow.author_id == who.user_id,
            lambda _: {"author_id": None},
        ),
    ),
    "moderation_incidents": (
        Changed(
            "incidents stay under an alias, without name and text",
            lambda who: ModerationIncidentRow.author_id == who.user_id,
            lambda who: {"author_id": who.alias, "author_name": ANYONE, "text": None, "evidence": None},
        ),
        Changed(
            "cards in the private chat are no longer followed",
            lambda who: ModerationIncidentRow.card_chat_id == who.user_id,
            lambda _: {"card_chat_id": None, "card_message_id": None},
        ),
        Rewritten("decisions of an admin stay, without the name"),
    ),
    "moderation_warnings": (
        Changed(
            "warnings of 30 days stay under an alias, and still count",
            lambda who: ModerationWarningRow.member_id == who.user_id,
            lambda who: {"member_id": who.alias},
        ),
    ),
    "moderation_reports": (Deleted("reports of a member", lambda who: ModerationReportRow.reporter_id == who.user_id),),
    "moderation_pending": (Rewritten("a message that waits for a verdict, a day at most: without the name"),),
    "moderation_entries": (
        Changed(
            "the card of a raid in the private chat is no longer followed",
            lambda who: ModerationEntryRow.card_chat_id == who.user_id,
            lambda _: {"card_chat_id": None, "card_message_id": None},
        ),
    ),
    "moderation_newcomers": (Rewritten("the state at a group's gate stays under an alias"),),
    "moderation_days": (Impersonal("counts of a group"),),
    "local_scores": (Impersonal("weights of hashed words"),),
}
"""By name of the table."""

QUEUE_TABLES: Mapping[str, str] = {
    "workflow_status": "jobs of two days: an update with its message; rows stay, empty, so that no update counts twice",
    "workflow_input": "the same, in newer versions of the library",
}
"""Tables of the durable queue that hold data of people; the others hold nothing that a job wrote."""


@dataclass(frozen=True, slots=True)
class KeyFamily:
    """A family of Redis keys under REDIS_PREFIX.

    Args:
        source: the module that writes it.
        pattern: pattern of the keys, with `*` for variable parts.
        holds: description for people and operators.
    """

    source: str
    pattern: str
    holds: str


KEYS: Sequence[KeyFamily] = (
    KeyFamily("services/limits/party_limits.py", "{limits}:rate:*", "messages of the last minute, by person and chat"),
    KeyFamily("services/limits/running_leases.py", "{limits}:running:*", "running answers, by person"),
    KeyFamily("services/llm/routing/affinity.py", "{llm}:stay:*", "provider of a person for five minutes"),
    KeyFamily("services/chat/stand_ins.py", "stand-in:*", "line about an external provider, by chat, for a week"),
    KeyFamily("services/moderation/judging/verdict_cache.py", "mod:*:verdict:*", "verdicts of a day, by author"),
    KeyFamily("services/moderation/judging/judge.py", "mod:*:budget:*", "judgements of a day, by author"),
    KeyFamily("services/moderation/judging/judge.py", "mod:*:pictures:*", "judged pictures of a day, by author"),
    KeyFamily("services/moderation/screening/exemptions.py", "mod:*:ham:*", "checksums of texts and pictures"),
    KeyFamily("services/moderation/screening/rate_windows.py", "{group:*}:*", "messages of some minutes, by author"),
    KeyFamily("core/redis/notify_once.py", "mod:*:told:*", "times of notices to groups"),
    KeyFamily("services/admin/notices.py", "{llm}:told:*", "times of notices to operators"),
    KeyFamily("services/llm/routing/state/shared_state.py", "{llm}:*", "state of providers"),
    KeyFamily("services/llm/routing/opening.py", "*", "the same for other capabilities"),
    KeyFamily("services/llm/routing/admission/concurrency.py", "{llm}:*", "running requests of a provider"),
    KeyFamily("services/llm/routing/admission/leases.py", "{llm}:inflight:*", "running requests of a provider"),
    KeyFamily("services/moderation/signals/campaigns.py", "mod:{campaign}:*", "checksums of adverts"),
    KeyFamily("bot/telegram/answers/cancellation.py", "stops", "answers that are to be stopped, not stored"),
    KeyFamily("bot/operators/console_links.py", "console:link:*", "codes of sign-in links of operators, for minutes"),
    KeyFamily("bot/web/console/frame/access.py", "console:session:*", "sessions of operators"),
    KeyFamily("services/admin/undo.py", "console:undo:*", "what acts of operators replaced, for half an hour"),
)
"""Keys with the number of the person in their name are deleted, members that begin with it, and sessions."""

FILES: Mapping[str, str] = {
    "understudy.db": "the tables above; rewritten after an erasure, so that no free page holds anything deleted",
    "inbox.db": "the durable queue; rewritten likewise",
    "sends.journal": "numbers of turns and messages, until they are delivered",
    "inbox.lock": "nothing",
    "console.history": "lines that the operator typed in the terminal console; erased by its /forget",
    "console.pictures": "pictures that were drawn in the terminal console; erased by its /forget",
    "inbox.failure": "a time",
}
"""Files in DATA_DIR with personal data."""
