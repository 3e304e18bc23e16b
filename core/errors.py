"""The errors that Understudy raises on purpose.

UnderstudyError
├── ConfigurationError        invalid settings: one line each, exit 1
├── StartupError              the environment prevents the start: one line, exit 1
├── InboxError                the queue of jobs cannot work any more: one line, exit 1
├── ReplicaReplaced           another replica has taken the work over: register anew
├── UnreadableUpdate          an update of Telegram's that this version cannot read: a dead letter
├── StorageError              the database failed; `permanent` if a retry is pointless
├── ScheduleRefused           a schedule that cannot be made, for a reason that its user can mend
└── ProviderError             one provider, or all of them, gave no answer
    ├── AllProvidersFailed    every candidate failed (also a RuntimeError)
    │   └── NoUsableAnswer    a provider answered, but not in the requested shape
    ├── AnswerInterrupted     a provider failed after its first output, which is kept
    ├── ContentRefused        a provider's content filter refused, with its own reason
    ├── ContextWindowExceeded the request exceeds every candidate's context window
    ├── BudgetExhausted       a budget is used up until its renewal
    ├── ConsentNeeded         only remote providers are left, and the chat has not consented
    ├── RequestRejected       the request itself is invalid: no provider would accept it
    ├── NothingHeard          a recording has no speech in it
    ├── NotTranscribed        no provider of VOICE_PROVIDERS transcribed a recording, or there is none
    └── UnknownProvider       a name that is not in AVAILABLE_PROVIDERS
"""

from collections.abc import Sequence
from dataclasses import dataclass


class UnderstudyError(Exception):
    """The root of the tree."""


class ConfigurationError(UnderstudyError):
    """Invalid settings.

    Args:
        mistakes: one line each: the variable, the fault, an example.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class StartupError(UnderstudyError):
    """A cause outside the settings prevents the start. The message is one line for the operator."""


class InboxError(UnderstudyError):
    """The queue of jobs cannot work in this process any more. The message is one line for the operator."""


class ReplicaReplaced(UnderstudyError):
    """Another replica took over while this one hung. It has to give up its work and to register under a new name."""


class UnreadableUpdate(UnderstudyError):
    """An update of Telegram's of which not even the essential fields are valid."""


class StorageError(UnderstudyError):
    """The database is locked, read-only, full or unreachable, or refused a statement.

    Args:
        message: one line for the log, without stored data.
        permanent: True if the same statement can never succeed, so that a retry is pointless.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(message)


class ScheduleRefused(UnderstudyError):
    """A schedule that cannot be made.

    Args:
        key: key of the text with the reason.
        arguments: arguments of the text.
    """

    def __init__(self, key: str, **arguments: str | int) -> None:
        self.key = key
        self.arguments = arguments
        super().__init__(key)


class ProviderError(UnderstudyError):
    """One provider, or all of them, gave no answer."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """A candidate that was tried for a request, and the reason why it failed."""

    provider: str
    model: str
    reason: str


class AllProvidersFailed(ProviderError, RuntimeError):
    """Every candidate failed.

    Args:
        attempts: the candidates in the order in which they were tried.
    """

    def __init__(self, attempts: Sequence[FailedAttempt]) -> None:
        self.attempts = tuple(attempts)
        tried = "; ".join(f"{attempt.provider} ({attempt.model}): {attempt.reason}" for attempt in self.attempts)
        super().__init__(f"all providers failed: {tried or 'none is configured'}")


class NoUsableAnswer(AllProvidersFailed):
    """Every candidate failed, and at least one of them by an answer that is not of the requested shape.

    That is a property of this request, unlike an outage: a repeat at another time is likely to end the same way.
    """


class AnswerInterrupted(ProviderError):
    """A provider failed after its first output had been passed on to the reader."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider = provider
        self.reason = reason
        super().__init__(f"{provider} broke off its answer: {reason}")


class ContentRefused(ProviderError):
    """A provider's content filter refused to answer. `reason` quotes the provider if it gave one."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider = provider
        self.reason = reason
        super().__init__(f"{provider} refused: {reason}")


class ContextWindowExceeded(ProviderError):
    """The request exceeds the context window of every candidate."""

    def __init__(self, attempts: Sequence[FailedAttempt]) -> None:
        self.attempts = tuple(attempts)
        super().__init__("the request is longer than every candidate's context window")


class ConsentNeeded(ProviderError):
    """Only remote providers are left, and the chat has not consented to them."""

    def __init__(self) -> None:
        super().__init__("only remote providers could serve, and the chat has not agreed to them")


class BudgetExhausted(ProviderError):
    """No candidate was asked: a budget that the request counts in is used up.

    Args:
        budget: owner of the budget: `user`, `chat`, `provider` or `all`.
        renews_at: seconds since the epoch.
    """

    def __init__(self, budget: str, renews_at: float) -> None:
        self.budget = budget
        self.renews_at = renews_at
        super().__init__(f"the budget of this day is used up ({budget})")


class RequestRejected(ProviderError):
    """A provider rejected the request as invalid, so no failover is attempted."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider = provider
        self.reason = reason
        super().__init__(f"{provider} rejected the request: {reason}")


class NothingHeard(ProviderError):
    """A recording in which two providers heard nothing, or the only one."""


class NotTranscribed(ProviderError):
    """No provider transcribed a recording.

    Args:
        is_set_up: False where no provider for that is configured.
    """

    def __init__(self, *, is_set_up: bool) -> None:
        self.is_set_up = is_set_up
        super().__init__("no provider transcribed the recording" if is_set_up else "no provider transcribes")


class UnknownProvider(ProviderError, LookupError):
    """A provider that is not in AVAILABLE_PROVIDERS."""

    def __init__(self, provider: str, known: Sequence[str]) -> None:
        self.provider = provider
        self.known = tuple(known)
        super().__init__(f"unknown provider {provider!r}, known: {', '.join(known)}")
