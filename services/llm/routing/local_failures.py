"""Finds the failed local provider that lets a request leave the operator's own machines."""

from collections.abc import Collection, Sequence
from itertools import takewhile

from core.config.providers import ProviderSettings
from services.llm.request import Candidate
from services.llm.routing.state.clock_bounds import SET_BY_ADMIN
from services.llm.routing.state.rules import Routing


def find_local_failure(
    candidate: Candidate, failed: Collection[str], providers: Sequence[ProviderSettings], routing: Routing
) -> str | None:
    """Returns the local provider that a remote candidate replaces; None where none failed.

    An operator's force, a user's choice and a cooldown that an operator set are decisions, not failures.

    Args:
        candidate: the one that answers.
        failed: ids of the providers that failed in this request.
        providers: those that can be asked, by priority.
        routing: the state; a provider that failed in earlier requests has a cooldown there until it answers.
    """
    if not candidate.provider.remote or not candidate.by_order:
        return None
    earlier = {each.id for each in takewhile(lambda each: each.id != candidate.provider.id, providers)}
    local = (each.id for each in providers if not each.remote)
    return next((name for name in local if name in failed or (name in earlier and _has_failed(name, routing))), None)


def _has_failed(provider: str, routing: Routing) -> bool:
    cooldown = routing.cooldowns.get(provider)
    return cooldown is not None and cooldown.reason != SET_BY_ADMIN
