"""Asks a silent provider as a crowd over HTTP, and reports how long its people wait for the healthy one behind it."""

import argparse
import asyncio
import logging
import statistics

import structlog

from benchmarks.measuring import machine, print_table
from services.llm.routing.timing import RoutingTiming
from tests.support.crowd import run_crowd


async def main(people: int, deadline_s: float) -> None:
    """Run one crowd with the places and the patience of a daemon."""
    print(f"{machine()}; {people} people at once, a first-output deadline of {deadline_s:g} s")
    report = await run_crowd(people, deadline_s, RoutingTiming())
    percentiles = statistics.quantiles(report.waits_s, n=20, method="inclusive")
    rows = [
        ["requests to the silent provider", str(report.asked["silent"])],
        ["answered by the healthy one", str(report.answered["healthy"])],
        ["wait for an answer, s: median, 95%", f"{percentiles[9]:.2f}, {percentiles[18]:.2f}"],
        ["wait of a request for the healthy one meanwhile, s", f"{report.idle_s:.2f}"],
    ]
    print_table(["", "requests"], rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=450)
    parser.add_argument("--deadline", type=float, default=6.0)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(options.people, options.deadline))
