"""Runs 200 concurrent requests at two replicas on one Redis while three providers fail and recover at random.

A request counts as unanswered if it failed although one provider was healthy from its start to its end.
"""

import argparse
import asyncio
import logging
import statistics
import tempfile
from pathlib import Path

import structlog

from benchmarks.measuring import machine, print_table
from tests.support.flapping import QUICK_FAILURES, FlappingPlan, FlappingReport, run_flapping
from tests.support.processes.redis_server import RedisServer


def to_rows(report: FlappingReport) -> list[list[str]]:
    """Return the rows of the table."""
    percentiles = statistics.quantiles(report.waits_s, n=20, method="inclusive")
    by_provider = ", ".join(f"{name} {count:,}" for name, count in sorted(report.answered.items()))
    by_kind = ", ".join(f"{kind} {count:,}" for kind, count in sorted(report.failures.items()))
    return [
        ["answered", f"{report.answered.total():,} ({by_provider})"],
        ["failures of the providers meanwhile", f"{report.failures.total():,} ({by_kind})"],
        ["unanswered while one provider was healthy", str(len(report.unanswered))],
        ["failed while each provider was unhealthy for a time", f"{report.excused:,}"],
        ["interrupted after their first text", f"{report.interrupted:,}"],
        ["with text of more than one answer", str(len(report.glued))],
        ["most leases in Redis at one time", str(report.most_leases)],
        ["leases left in Redis at the end", str(len(report.leases))],
        ["duration of a request, s: median, 95%", f"{percentiles[9]:.2f}, {percentiles[18]:.2f}"],
    ]


async def main(seconds: float, requests: int, seed: int) -> None:
    """Run on a Redis of its own."""
    print(f"{machine()}; {requests} requests in flight for {seconds:.0f} s, seed {seed}")
    plan = FlappingPlan(seconds, requests, failures=(*QUICK_FAILURES, "hang"), seed=seed)
    with tempfile.TemporaryDirectory() as directory:
        redis = RedisServer(Path(directory))
        await redis.start()
        try:
            report = await run_flapping(plan, redis.url)
        finally:
            await redis.stop()
    print_table(["", "requests"], to_rows(report))
    for line in (*report.unanswered, *report.glued, *report.leases):
        print(line)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(options.seconds, options.requests, options.seed))
