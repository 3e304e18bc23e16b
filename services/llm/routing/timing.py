"""Durations and bounds of the fallback service: settings of operators, and its own waits."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RoutingLimits:
    """The settings `PROVIDER_PREFERRED_TTL`, `PROVIDER_COOLDOWN` (both in seconds) and `PROVIDER_MAX_HOPS`."""

    preferred_ttl_s: float = 1800.0
    cooldown_s: float = 300.0
    max_hops: int = 3


@dataclass(frozen=True, slots=True)
class RoutingTiming:
    """Waits of the fallback service.

    Args:
        retry_pause_s: shortest and longest pause before a provider is asked again after a hiccup.
        loading_poll_s: first and longest pause between two requests to a server that loads its model.
        learned_s: how long the limits of a model are remembered that its server named.
        guessed_s: retention if a reduced request was answered, which proves less.
        lease_margin_s: time added to the longest answer in a probe's lease, in case its holder dies.
        lease_wait_s: how long a request waits for Redis to grant the lease; without a lease it does not probe.
        acknowledge_s: how long an operator's command waits until Redis has it; it is written later in any case.
        longest_stream_s: longest time of a streamed answer that keeps coming.
        max_opening: requests of this process that wait for the first output of one provider at the same time; further
            ones queue before their deadline starts.
        opening_patience_s: how long that queue may stand still before its requests go on to another provider that
            could answer.
    """

    retry_pause_s: tuple[float, float] = (0.2, 0.3)
    loading_poll_s: tuple[float, float] = (1.0, 3.0)
    learned_s: float = 24 * 3600.0
    guessed_s: float = 3600.0
    lease_margin_s: float = 5.0
    lease_wait_s: float = 0.3
    acknowledge_s: float = 0.5
    longest_stream_s: float = 600.0
    max_opening: int = 200
    opening_patience_s: float = 1.0
