"""Ratios with their spread, the CPU time and memory of a process, and tables for docs/performance.md."""

import gc
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

Work = Callable[[], Awaitable[object]]

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some figures with their quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Self:
        """The spread of two figures or more."""
        return cls(*statistics.quantiles(figures, n=4, method="inclusive"))

    def text(self, digits: int = 2) -> str:
        """The median, and the quartiles in brackets."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(slots=True)
class Rounds:
    """What each alternative cost, round after round; the ratios are to the first, of the same round."""

    figures: dict[str, list[float]]

    @property
    def first(self) -> str:
        """The alternative that the others are compared with."""
        return next(iter(self.figures))

    def spread(self, name: str) -> Spread:
        """The figures of one alternative."""
        return Spread.of(self.figures[name])

    def ratio(self, name: str, to: str | None = None) -> Spread:
        """What one cost in relation to another, or to the first."""
        pairs = zip(self.figures[name], self.figures[to or self.first], strict=True)
        return Spread.of([mine / base for mine, base in pairs])


async def interleave(
    alternatives: Mapping[str, Callable[[], Awaitable[float]]], rounds: int, *, warm_up: int = 1
) -> Rounds:
    """Have each alternative measured once a round, the order changing so that none always comes first.

    Args:
        alternatives: by name, what measures one turn of it.
        rounds: how often each takes its turn.
        warm_up: how often before what is measured counts.
    """
    figures: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(-warm_up, rounds):
        for name in random.sample(list(alternatives), len(alternatives)):
            figure = await alternatives[name]()
            if number >= 0:
                figures[name].append(figure)
    return Rounds(figures)


async def compare(alternatives: Mapping[str, Work], *, rounds: int, repeat: int) -> Rounds:
    """The CPU time of calls in this process, in milliseconds a call.

    Within a round the alternatives take turns call by call, so that what slows the machine for a moment slows all.

    Args:
        alternatives: by name, the first being what the others are compared with.
        rounds: how many ratios there will be.
        repeat: how many calls of each a round has.
    """
    names = list(alternatives)
    for name in names:
        for _ in range(20):
            await alternatives[name]()
    # What the imports left never dies: a full collection of it would land on whoever is just measured.
    gc.collect()
    gc.freeze()
    figures: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        spent = dict.fromkeys(names, 0.0)
        for _ in range(repeat):
            for name in random.sample(names, len(names)):
                began = time.process_time()
                await alternatives[name]()
                spent[name] += time.process_time() - began
        for name in names:
            figures[name].append(spent[name] / repeat * 1000)
    gc.unfreeze()
    return Rounds(figures)


def cpu_s(pid: int) -> float:
    """The CPU time of a process so far, all its threads, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def rss_mib(pid: int) -> float:
    """The memory of a process that is resident right now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A Markdown table."""
    print()
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def machine() -> str:
    """One line on where the figures come from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "unknown processor")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({model}), load {load:.1f} at the start"
