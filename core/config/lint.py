"""Finds variables without effect (misspelt, or of an unlisted provider), values seldom meant, and ids that clash."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from core.config.providers import ProviderKind, ProviderVariables, variable_prefix
from core.durations import format_duration

_FOREIGN_SUFFIXES: Mapping[str, str] = {
    "KEY": "API_KEY",
    "URL": "BASE_URL",
    "API_BASE": "BASE_URL",
    "ENDPOINT": "BASE_URL",
}
"""Suffixes that other programs use, too different from ours for a similarity match."""

_DISTINCTIVE = frozenset({"BASE_URL", "FIRST_TOKEN_TIMEOUT", "STALL_TIMEOUT", "MAX_CONCURRENCY"})
"""Suffixes that are ours in the environment too. `API_KEY`, `TIMEOUT` and others belong to many programs."""
_FOREIGN_PREFIXES = ("OTEL_",)
"""Variables of the OpenTelemetry SDK, such as OTEL_EXPORTER_OTLP_TIMEOUT."""

SHORTEST_HISTORY = 300
"""Minimum useful HISTORY_TOKENS: a question of some lines with its answer."""

LONGEST_TIMEOUT_S = 10_000.0
"""Almost three hours; 10,000 milliseconds are a common timeout of other programs."""


def find_ignored(
    values: Iterable[str], file_names: frozenset[str], provider_ids: Sequence[str], common_names: Sequence[str]
) -> list[str]:
    """Returns a warning for each variable that was probably meant for this program and has no effect.

    The environment also holds variables of other programs; the file holds ours only.

    Args:
        values: names of all variables that are set.
        file_names: those that the file sets.
        provider_ids: the listed providers.
        common_names: names of all settings that belong to no provider, aliases included.
    """
    names = sorted(values)
    known = frozenset(common_names).union(
        *(ProviderVariables.variable_names(variable_prefix(provider_id)) for provider_id in provider_ids)
    )
    found = [line for provider_id in provider_ids for line in _find_misspelt(provider_id, names, known)]
    unlisted = _find_unlisted([name for name in names if name not in known], file_names, provider_ids)
    found += unlisted.values()
    for name in sorted(file_names - known - unlisted.keys()):
        meant = next(iter(difflib.get_close_matches(name, common_names, 1, 0.85)), None)
        if meant:
            found.append(f"{name} is unknown and ignored, did you mean {meant}?")
    return list(dict.fromkeys(found))


def _find_misspelt(provider_id: str, variables: Iterable[str], known: frozenset[str]) -> list[str]:
    """Returns a warning for each variable that resembles one of a listed provider's."""
    prefix = variable_prefix(provider_id)
    suffixes = ProviderVariables.variable_names()
    found: list[str] = []
    for name in variables:
        suffix = name.removeprefix(prefix)
        if name in known or suffix == name:
            continue
        # 0.75 matches TIMOUT and RETRYS, but not OLLAMA_HOST, OLLAMA_MODELS or OPENAI_ORG_ID of other programs.
        meant = _FOREIGN_SUFFIXES.get(suffix) or next(iter(difflib.get_close_matches(suffix, suffixes, 1, 0.75)), None)
        if meant:
            found.append(f"{name} is unknown and ignored, did you mean {prefix}{meant}?")
    return found


def _find_unlisted(names: Iterable[str], file_names: frozenset[str], provider_ids: Sequence[str]) -> dict[str, str]:
    """Returns a warning for each variable of a provider that AVAILABLE_PROVIDERS does not list."""
    suffixes = sorted(ProviderVariables.variable_names(), key=len, reverse=True)
    prefixes = [variable_prefix(provider_id) for provider_id in provider_ids]
    kinds = {variable_prefix(kind) for kind in ProviderKind}
    found: dict[str, str] = {}
    for name in names:
        suffix = next((each for each in suffixes if name.endswith(f"_{each}")), None)
        if suffix is None or name.startswith((*_FOREIGN_PREFIXES, *prefixes)):
            continue
        prefix = name.removesuffix(suffix)
        similar = next(iter(difflib.get_close_matches(prefix, prefixes, 1, 0.8)), None)
        if name in file_names or suffix in _DISTINCTIVE or prefix in kinds or similar:
            found[name] = _describe_unlisted(name, prefix, similar, suffix)
    return found


def _describe_unlisted(name: str, prefix: str, similar: str | None, suffix: str) -> str:
    if similar is not None:
        return f"{name} is ignored: AVAILABLE_PROVIDERS lists no such provider, did you mean {similar}{suffix}?"
    provider_id = prefix.removesuffix("_").lower()
    example = json.dumps({provider_id: ["its-model"]})
    return (
        f'{name} is ignored: AVAILABLE_PROVIDERS does not list the provider "{provider_id}", '
        f"for example AVAILABLE_PROVIDERS={example}"
    )


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


def find_clashes(provider_ids: Iterable[str], others: Iterable[str]) -> list[str]:
    """Returns a line for each id that would share a variable with another id or with a common setting.

    Args:
        provider_ids: the ids of AVAILABLE_PROVIDERS.
        others: names of the common settings.
    """
    owners = {name: f"the setting {name}" for name in others}
    found: list[str] = []
    for provider_id in provider_ids:
        own = ProviderVariables.variable_names(variable_prefix(provider_id))
        shared = next((name for name in own if name in owners), None)
        if shared:
            found.append(f'"{provider_id}" and {owners[shared]} would share {shared}: choose another id')
        owners.update((name, f'"{provider_id}"') for name in own if name not in owners)
    return found
