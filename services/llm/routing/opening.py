"""Opens the fallback service over the providers of one capability: chat, embeddings, transcription."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from redis.asyncio import Redis

from core.clock import Clock
from core.config.providers import ProviderSettings
from core.config.settings import Settings
from services.llm.routing.admission.budget_guard import BudgetGuard
from services.llm.routing.admission.concurrency import LoadShedding
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.state.clock_bounds import InstantBounds
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.timing import RoutingLimits
from services.llm.usage import UsageMeter


@dataclass(frozen=True, slots=True)
class OpenFallback:
    """The fallback service with its state and limits."""

    fallback: LLMProviderFallback
    shared: SharedRouting
    shedding: LoadShedding
    budgets: BudgetGuard | None


async def open_fallback(  # noqa: PLR0913 - what the capabilities share, and what each has of its own
    stack: AsyncExitStack,
    settings: Settings,
    redis: Redis,
    clock: Clock,
    meter: UsageMeter | None = None,
    *,
    providers: Sequence[ProviderSettings] | None = None,
    capability: str | None = None,
    shedding: LoadShedding | None = None,
    budgets: BudgetGuard | None = None,
) -> OpenFallback:
    """Opens the fallback service over the providers of one capability.

    Args:
        stack: closes it.
        settings: the settings.
        redis: shares the state over replicas and scripts.
        clock: the clock.
        meter: counts usage.
        providers: those of the chat by default.
        capability: keeps a health of its own under this name; None for the chat.
        shedding: limits of concurrent requests, one for all capabilities of a process.
        budgets: reserves the cost of each request.
    """
    chosen = settings.providers if providers is None else providers
    bounds = InstantBounds(
        cooldown_s=max(InstantBounds().cooldown_s, settings.provider_cooldown),
        preferred_s=settings.provider_preferred_ttl,
        lease_s=max([InstantBounds().lease_s, *(2 * provider.timeout_s for provider in chosen)]),
    )
    prefix = settings.redis_prefix if capability is None else f"{settings.redis_prefix}:{capability}"
    shared = SharedRouting(redis, prefix, clock, bounds=bounds)
    await shared.start()
    stack.push_async_callback(shared.close)
    if shedding is None:
        shedding = LoadShedding(redis, settings.redis_prefix, clock)
        stack.push_async_callback(shedding.close)
    limits = RoutingLimits(settings.provider_preferred_ttl, settings.provider_cooldown, settings.provider_max_hops)
    fallback = LLMProviderFallback(chosen, shared, clock, limits, shedding, meter, budgets=budgets)
    return OpenFallback(fallback, shared, shedding, budgets)
