"""Standings from votes: how often each model or provider was preferred, and whether that is more than chance."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import sqrt
from typing import Final

Z_95: Final = 1.959964
"""Width of a 95% confidence interval, in standard deviations."""
FEWEST_VOTES: Final = 20
"""Fewer votes show no preference."""
HALF: Final = 0.5
"""The share of two that are equally good."""


@dataclass(frozen=True, slots=True)
class ModelVotes:
    """Votes about one model, or about all models of a provider.

    Args:
        up: thumbs up under its answers.
    """

    model: str
    wins: int = 0
    losses: int = 0
    ties: int = 0
    up: int = 0
    down: int = 0

    @property
    def count(self) -> int:
        """The number of comparisons."""
        return self.wins + self.losses + self.ties

    @property
    def share(self) -> float:
        """The share of comparisons that it won, a tie as half of one; 0 without any."""
        return (self.wins + self.ties / 2) / self.count if self.count else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% confidence interval of the share."""
        return wilson_interval(self.wins + self.ties / 2, self.count)

    @property
    def is_preferred(self) -> bool:
        """True if it was preferred more often than chance explains."""
        return self.count >= FEWEST_VOTES and self.interval[0] > HALF


@dataclass(frozen=True, slots=True)
class PairVotes:
    """Comparisons of two models, or of two providers; the first name is the one that was preferred, if any."""

    names: tuple[str, str]
    wins: tuple[int, int] = (0, 0)
    ties: int = 0

    @property
    def count(self) -> int:
        """The number of comparisons."""
        return sum(self.wins) + self.ties

    @property
    def is_decided(self) -> bool:
        """True if the first one is preferred, and that is more than chance."""
        low, _ = wilson_interval(self.wins[0] + self.ties / 2, self.count)
        return self.count >= FEWEST_VOTES and low > HALF


@dataclass(frozen=True, slots=True)
class VoteTally:
    """All votes of a period.

    Args:
        pairs: by pair of models, in whichever order they were shown; a pair may occur twice.
        thumbs: thumbs up and down under answers, by model.
    """

    pairs: Sequence[PairVotes] = ()
    thumbs: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def renamed(self, rename: Callable[[str], str]) -> "VoteTally":
        """Returns the votes under other names, without comparisons that then have the same name on both sides."""
        thumbs = defaultdict[str, tuple[int, int]](lambda: (0, 0))
        for model, (up, down) in self.thumbs.items():
            before = thumbs[rename(model)]
            thumbs[rename(model)] = (before[0] + up, before[1] + down)
        pairs = [replace(pair, names=(rename(pair.names[0]), rename(pair.names[1]))) for pair in self.pairs]
        return VoteTally([pair for pair in pairs if pair.names[0] != pair.names[1]], thumbs)

    def by_provider(self) -> "VoteTally":
        """Returns the votes about providers; comparisons within one are left out."""
        return self.renamed(lambda model: model.partition("/")[0])

    def standings(self) -> Sequence[ModelVotes]:
        """Returns the votes by name, the one with the largest share of won comparisons first."""
        found = defaultdict[str, ModelVotes](lambda: ModelVotes(""))
        for pair in self.pairs:
            for name, wins, losses in zip(pair.names, pair.wins, reversed(pair.wins), strict=True):
                before = found[name]
                found[name] = replace(
                    before, wins=before.wins + wins, losses=before.losses + losses, ties=before.ties + pair.ties
                )
        for name, (up, down) in self.thumbs.items():
            found[name] = replace(found[name], up=up, down=down)
        standings = [replace(standing, model=name) for name, standing in found.items()]
        return sorted(standings, key=lambda each: (-each.share, -each.wins, each.down - each.up, each.model))

    def matches(self) -> Sequence[PairVotes]:
        """Returns each pair once, with its preferred name first; those with the most votes first."""
        found: dict[tuple[str, str], PairVotes] = {}
        for pair in self.pairs:
            turned = _turn(pair) if pair.names[0] > pair.names[1] else pair
            before = found.get(turned.names, PairVotes(turned.names))
            wins = (before.wins[0] + turned.wins[0], before.wins[1] + turned.wins[1])
            found[turned.names] = PairVotes(turned.names, wins, before.ties + turned.ties)
        best_first = [_turn(pair) if pair.wins[1] > pair.wins[0] else pair for pair in found.values()]
        return sorted(best_first, key=lambda pair: (-pair.count, pair.names))


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """Returns the 95% confidence interval of a share by Wilson's formula, which holds for few votes too."""
    if not count:
        return 0.0, 1.0
    share, spread = successes / count, Z_95**2 / count
    centre = share + spread / 2
    half = Z_95 * sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, (centre - half) / (1 + spread)), min(1.0, (centre + half) / (1 + spread))


def _turn(pair: PairVotes) -> PairVotes:
    return PairVotes((pair.names[1], pair.names[0]), (pair.wins[1], pair.wins[0]), pair.ties)
