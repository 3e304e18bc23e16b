"""Provider fallback: order, health, cooldowns, leases, concurrency limits."""
