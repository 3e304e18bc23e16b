"""Warnings about values that are allowed and seldom meant: a history of a sentence, seconds written in milliseconds."""

from collections.abc import Iterable, Iterator, Mapping

from core.config.providers import ProviderVariables, variable_prefix
from core.durations import format_duration

SHORTEST_HISTORY = 300
"""In tokens: a question of some lines with its answer."""

LONGEST_TIMEOUT_S = 10_000.0
"""Almost three hours; 10,000 milliseconds are a common timeout of other programs."""


def find_unlikely(values: Mapping[str, str], history_tokens: int, provider_ids: Iterable[str]) -> Iterator[str]:
    """Yields a warning for each value that was probably not meant.

    Args:
        values: all variables that are set, valid ones.
        history_tokens: the setting of this name.
        provider_ids: the listed providers.
    """
    if history_tokens < SHORTEST_HISTORY:
        yield (
            f"HISTORY_TOKENS={history_tokens} holds about {history_tokens * 3 // 4} words, so a conversation is "
            "forgotten at once, for example HISTORY_TOKENS=8000"
        )
    known = {"SHUTDOWN_TIMEOUT"}.union(
        *(ProviderVariables.variable_names(variable_prefix(provider_id)) for provider_id in provider_ids)
    )
    for name in sorted(known & values.keys()):
        if name.endswith("TIMEOUT") and (seconds := float(values[name])) >= LONGEST_TIMEOUT_S:
            yield f"{name}={values[name]} is {format_duration(seconds)}: it counts seconds, not milliseconds"
