"""Everything that Understudy raises on purpose.

UnderstudyError
├── ConfigurationError        a mistake in the settings: one line each, exit 1
├── StartupError              the world is not as the settings say: one line, exit 1
├── StorageError              the database does not take or give what was asked
└── ProviderError             a provider, or all of them, did not give an answer
    ├── AllProvidersFailed    nobody was left to try (also a RuntimeError)
    ├── AnswerInterrupted     a provider failed after its first output: what came is kept
    ├── ContentRefused        a provider's filter refused: the reason is the provider's own
    ├── ContextWindowExceeded the history is too long for every candidate
    ├── ConsentNeeded         only remote providers could serve, and nobody has agreed to that
    ├── RequestRejected       the request itself is at fault: no provider would take it
    └── UnknownProvider       a name that is not in AVAILABLE_PROVIDERS
"""

from collections.abc import Sequence
from dataclasses import dataclass


class UnderstudyError(Exception):
    """The root of the tree."""


class ConfigurationError(UnderstudyError):
    """Mistakes in the settings.

    Args:
        mistakes: one line each: the variable, what is wrong, an example.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(self.mistakes))


class StartupError(UnderstudyError):
    """Something outside the settings keeps the program from starting; the message is one line for the operator."""


class StorageError(UnderstudyError):
    """The database is locked, read-only, full or gone.

    Args:
        message: one line for the log, without stored data.
        permanent: the same statement can never succeed, so a retry is pointless.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        self.permanent = permanent
        super().__init__(message)


class ProviderError(UnderstudyError):
    """A provider, or all of them, did not give an answer."""


@dataclass(frozen=True, slots=True)
class FailedAttempt:
    """One provider that was tried for a request, and why it did not answer."""

    provider: str
    model: str
    reason: str


class AllProvidersFailed(ProviderError, RuntimeError):
    """Nobody was left to try.

    Args:
        attempts: each provider that was tried, in order, with its own reason.
    """

    def __init__(self, attempts: Sequence[FailedAttempt]) -> None:
        self.attempts = tuple(attempts)
        tried = "; ".join(f"{attempt.provider} ({attempt.model}): {attempt.reason}" for attempt in self.attempts)
        super().__init__(f"all providers failed: {tried or 'none is configured'}")


class AnswerInterrupted(ProviderError):
    """A provider failed after its first output had been passed on."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider = provider
        self.reason = reason
        super().__init__(f"{provider} broke off its answer: {reason}")


class ContentRefused(ProviderError):
    """A provider's content filter refused to answer; `reason` is in the provider's words where it gave any."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider = provider
        self.reason = reason
        super().__init__(f"{provider} refused: {reason}")


class ContextWindowExceeded(ProviderError):
    """No candidate has a window large enough for the request."""

    def __init__(self, attempts: Sequence[FailedAttempt]) -> None:
        self.attempts = tuple(attempts)
        super().__init__("the request is longer than every candidate's context window")


class ConsentNeeded(ProviderError):
    """Only providers that are not on the operator's own machines could serve, and the chat has not agreed to that."""

    def __init__(self) -> None:
        super().__init__("only remote providers could serve, and the chat has not agreed to them")


class RequestRejected(ProviderError):
    """A provider found fault with the request itself, so asking another would not help."""

    def __init__(self, provider: str, reason: str) -> None:
        self.provider = provider
        self.reason = reason
        super().__init__(f"{provider} rejected the request: {reason}")


class UnknownProvider(ProviderError, LookupError):
    """A provider that is not in AVAILABLE_PROVIDERS."""

    def __init__(self, provider: str, known: Sequence[str]) -> None:
        self.provider = provider
        self.known = tuple(known)
        super().__init__(f"unknown provider {provider!r}, known: {', '.join(known)}")
