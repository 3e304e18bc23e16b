"""Ratios with their spread, CPU time and memory of a process, and Markdown tables."""

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
    """Median and quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Self:
        """Return the spread of the figures; a single one has no spread."""
        if len(figures) == 1:
            return cls(figures[0], figures[0], figures[0])
        return cls(*statistics.quantiles(figures, n=4, method="inclusive"))

    def text(self, digits: int = 2) -> str:
        """Format the median with the quartiles in parentheses."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(slots=True)
class Rounds:
    """Cost of each alternative by round; ratios compare figures of the same round."""

    figures: dict[str, list[float]]

    @property
    def first(self) -> str:
        """The baseline: the first alternative."""
        return next(iter(self.figures))

    def spread(self, name: str) -> Spread:
        """Return the spread of one alternative."""
        return Spread.of(self.figures[name])

    def ratio(self, name: str, to: str | None = None) -> Spread:
        """Return the cost of one alternative relative to another, by default the first."""
        pairs = zip(self.figures[name], self.figures[to or self.first], strict=True)
        return Spread.of([mine / base for mine, base in pairs])


async def interleave(
    alternatives: Mapping[str, Callable[[], Awaitable[float]]], rounds: int, *, warm_up: int = 1
) -> Rounds:
    """Measure each alternative once per round, in random order.

    Args:
        alternatives: measurements by name.
        rounds: number of rounds that count.
        warm_up: rounds before them.
    """
    figures: dict[str, list[float]] = {name: [] for name in alternatives}
    for number in range(-warm_up, rounds):
        for name in random.sample(list(alternatives), len(alternatives)):
            figure = await alternatives[name]()
            if number >= 0:
                figures[name].append(figure)
    return Rounds(figures)


async def compare(alternatives: Mapping[str, Work], *, rounds: int, repeat: int) -> Rounds:
    """Measure the CPU time of calls in this process, in milliseconds per call.

    Within a round the alternatives alternate call by call, so that a slow moment of the machine affects all of them.

    Args:
        alternatives: calls by name; the first is the baseline.
        rounds: number of ratios.
        repeat: calls of each per round.
    """
    names = list(alternatives)
    for name in names:
        for _ in range(20):
            await alternatives[name]()
    # Objects of imported modules live for ever: a full collection of them would distort a measurement.
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
    """Return the CPU time of a process and its threads, to 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND


def rss_mib(pid: int) -> float:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 2**20


def peak_mib(pid: int) -> float:
    """Return the largest resident memory that a process has had."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def load() -> float:
    """Return the load average of the last minute."""
    return os.getloadavg()[0]


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    print()
    for row in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


def machine() -> str:
    """Describe the machine in one line."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "unknown processor")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores ({model}), load {load:.1f} at the start"
