"""A request to a model as a value: its purpose, its user and chat, and the providers that may serve it."""

from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

from core.config.providers import ProviderSettings
from core.messages import ChatRef, UserRef

DEFAULT_MAX_TOKENS: Final = 4096
"""Limit of an answer where the caller names none; it is always sent, since budgets are reserved by it."""


class Capability(StrEnum):
    """A part of a request that some models or servers refuse, and that can be left out."""

    TOOLS = "tools"
    TOOL_CHOICE = "tool_choice"
    SYSTEM_ROLE = "system_role"
    """Without it, the system text is put in front of the first user message."""
    IMAGES = "images"
    STRUCTURED_OUTPUT = "structured_output"
    STREAMING = "streaming"
    SETTINGS = "settings"
    """The limit of the answer, the sampling and the options of the stream; without them, the server's own apply.

    A limit that a model refuses is above its own, so that budgets, which reserve by it, hold."""
    WEB_SEARCH = "web_search"
    """The provider's own search; without it, the model gets ours, or is told that it cannot search."""
    OPUS = "opus"
    """A recording in OGG/Opus; without it, the recording is sent as MP3."""


WEB_SEARCH: Final = "web_search"
"""Name of the search tool, which a model with a search of its own gets natively instead."""
IS_BACKED: Final = "is_backed"
"""Key of the search tool's metadata: whether it works without a provider's search."""
IS_NATIVE: Final = "is_native"
"""Key of the same metadata: whether a provider's search may replace the tool. A caller's own tool has neither key."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A user's explicit choice: a provider, and one of its models or its default."""

    provider: str
    model: str | None = None


def matches_any(name: str, patterns: tuple[str, ...]) -> bool:
    """Returns whether a name matches one of the patterns, in which `*` stands for any text; none match every name."""
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class RequestSpec:
    """The facts of a request that decide which providers are asked and how its usage is booked.

    Args:
        purpose: `chat`, `moderation` or `naming`; a label in logs, metrics and usage.
        user: the user who gets the answer, such as `telegram:123`. After load shedding this user keeps the same
            provider for some minutes.
        chat: the chat that the request belongs to, such as `telegram:-100`.
        choice: the user's explicit choice. It comes after a provider that an admin forced and before the preferred
            one; the other providers follow if it fails.
        local_only: excludes remote providers, because the chat has not consented to them.
        required: capabilities that must not be left out for a model that refuses them: the next candidate is asked
            instead.
        stands_back: a request of our own, such as a thread's name. It waits for no slot and no queue, and is cancelled
            where a question needs its slot.
        models: patterns of `<provider>/<model>` that may be asked, such as `ollama/*`; empty for all.
        is_whole: no message may be left out for a small context window: the caller manages its history itself.
        is_pinned: only the chosen provider and model are asked.
        merges_arrivals: text of a stream that arrives in one read may be handed on as one piece.
        unusual: parts that another program composed in ways that the bot never uses. A failure that they may have
            caused says nothing about the bot's own requests: no provider cools down by it, and no refusal is learned.
        is_long: longer than a conversation of the bot gets, so that a missed deadline says as little.
        may_be_empty_at: finish reasons after which an answer without text is the caller's own doing: its limit, or one
            of its stop sequences.
    """

    purpose: str
    user: UserRef | None = None
    chat: ChatRef | None = None
    choice: ModelChoice | None = None
    local_only: bool = False
    required: frozenset[Capability] = field(default_factory=frozenset[Capability])
    stands_back: bool = False
    models: tuple[str, ...] = ()
    is_whole: bool = False
    is_pinned: bool = False
    merges_arrivals: bool = False
    unusual: frozenset[Capability] = field(default_factory=frozenset[Capability])
    is_long: bool = False
    may_be_empty_at: frozenset[str] = field(default_factory=frozenset[str])

    def with_choice(self, choice: ModelChoice | None) -> "RequestSpec":
        """Returns the request with a choice of its user."""
        return replace(self, choice=choice)

    @property
    def is_restricted(self) -> bool:
        """True if the request may be served by some of the models only."""
        return self.is_pinned or bool(self.models)

    def requires(self, capability: Capability) -> bool:
        """Returns whether a capability must not be left out; a choice among tools requires them."""
        is_chosen = capability is Capability.TOOLS and Capability.TOOL_CHOICE in self.required
        return capability in self.required or is_chosen

    def allows(self, provider: str, model: str) -> bool:
        """Returns whether a model may be asked."""
        if (
            self.is_pinned
            and self.choice is not None
            and (provider, model) != (self.choice.provider, self.choice.model)
        ):
            return False
        return matches_any(f"{provider}/{model}", self.models)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that may serve a request, with the model to use there.

    Args:
        by_order: False where an admin forced the provider or the user chose it.
        misfit: the model cannot take the request as it is (has no vision, for example) and is asked last.
    """

    provider: ProviderSettings
    model: str
    by_order: bool = True
    misfit: bool = False


@dataclass(frozen=True, slots=True)
class Adaptation:
    """The changes to a request that one model needs.

    Args:
        without: capabilities that are left out.
        max_input: limit of the request, in estimated tokens; older turns are dropped beyond it.
        window: the model's context window in tokens, where its server named it; limits the answer too.
        is_newest_turn: only the newest turn is sent.
    """

    without: frozenset[Capability] = field(default_factory=frozenset[Capability])
    max_input: int | None = None
    window: int | None = None
    is_newest_turn: bool = False


UNCHANGED: Final = Adaptation()
