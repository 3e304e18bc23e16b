"""Stores comparisons with their votes, and thumbs under answers; computes the standings of models from them."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from math import sqrt
from typing import Final

from sqlalchemy import Connection, case, delete, func, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.operator_tables import AnswerVoteRow, ComparisonRow
from core.db.tables import AnswerMessageRow, TurnRow
from core.messages import Surface, UserRef
from services.pseudonyms import Pseudonyms

Z_95: Final = 1.959964
"""Width of a 95% confidence interval, in standard deviations."""
FEWEST_VOTES: Final = 20
"""Fewer votes show no preference."""
HALF: Final = 0.5
"""The share of two that are equally good."""
OPEN_FOR = timedelta(days=7)
"""Time in which a comparison can be voted on."""


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
        pairs: results by pair of models, whose order is that of display; a pair may occur twice.
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


class Winner(StrEnum):
    """The result of a comparison."""

    A = "a"
    B = "b"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison.

    Args:
        models: models of the sides a and b, as `<provider>/<model>`.
        winner: None before the vote.
    """

    id: int
    models: tuple[str, str]
    winner: Winner | None


class Votes:
    """The vote store. Methods raise StorageError where the database fails."""

    def __init__(self, database: Database, clock: Clock, pseudonyms: Pseudonyms) -> None:
        self._database = database
        self._clock = clock
        self._pseudonyms = pseudonyms

    async def open(self, asker: UserRef, models: tuple[str, str], origin: str) -> int:
        """Stores a comparison on which its asker may vote. Returns its number; that of an earlier call by origin."""
        now = self._clock.now()
        values = {
            "origin": origin,
            "asker": self._pseudonyms.of(asker),
            "model_a": models[0],
            "model_b": models[1],
            "created_at": now,
        }
        insert = self._database.insert(ComparisonRow).values(values).on_conflict_do_nothing(index_elements=["origin"])
        number = select(ComparisonRow.id).where(ComparisonRow.origin == origin)
        expired = delete(ComparisonRow).where(ComparisonRow.winner.is_(None), ComparisonRow.created_at < now - OPEN_FOR)

        def store(connection: Connection) -> int:
            connection.execute(expired)
            connection.execute(insert)
            return connection.execute(number).scalar_one()

        return await self._database.run(store)

    async def vote(self, number: int, asker: UserRef, winner: Winner) -> Comparison | None:
        """Votes, once. Returns the comparison with the vote that counts; None if it is not one of this asker."""
        own = (ComparisonRow.id == number, ComparisonRow.asker == self._pseudonyms.of(asker))
        change = update(ComparisonRow).where(*own, ComparisonRow.winner.is_(None)).values(winner=winner.value)
        query = select(ComparisonRow.model_a, ComparisonRow.model_b, ComparisonRow.winner).where(*own)

        def store(connection: Connection) -> Comparison | None:
            connection.execute(change)
            row = connection.execute(query).first()
            if row is None:
                return None
            return Comparison(number, (row.model_a, row.model_b), Winner(row.winner))

        return await self._database.run(store)

    async def react(self, surface: Surface, chat_id: int, message_id: int, voter: UserRef, value: int) -> bool:
        """Stores a thumb under an answer, in place of an earlier one of this person.

        Args:
            value: 1 for up, -1 for down, 0 to take it back.

        Returns:
            False if the message is no answer of a known model.
        """
        answer = (
            select(TurnRow.id, TurnRow.provider, TurnRow.model)
            .join(AnswerMessageRow, AnswerMessageRow.turn_id == TurnRow.id)
            .where(
                AnswerMessageRow.surface == surface,
                AnswerMessageRow.chat_id == chat_id,
                AnswerMessageRow.message_id == message_id,
            )
        )
        now = self._clock.now()

        def store(connection: Connection) -> bool:
            row = connection.execute(answer).first()
            if row is None or row.provider is None or row.model is None:
                return False
            ballot = self._pseudonyms.of(f"{voter}:{row.id}")
            if not value:
                connection.execute(delete(AnswerVoteRow).where(AnswerVoteRow.ballot == ballot))
                return True
            values = {"model": f"{row.provider}/{row.model}", "value": value, "at": now}
            insert = self._database.insert(AnswerVoteRow).values(ballot=ballot, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=["ballot"], set_=values))
            return True

        return await self._database.run(store)

    async def standings(self) -> Sequence[ModelVotes]:
        """Returns all votes by model, the model with the largest share of won comparisons first."""
        return (await self.tally()).standings()

    async def tally(self, since: datetime | None = None) -> VoteTally:
        """Returns the votes on comparisons and answers since an instant, or all of them."""
        row, ballot = ComparisonRow, AnswerVoteRow
        asked = [row.winner.is_not(None)] if since is None else [row.winner.is_not(None), row.created_at >= since]
        pairs = (
            select(row.model_a, row.model_b, row.winner, func.count())
            .where(*asked)
            .group_by(row.model_a, row.model_b, row.winner)
        )
        ups = func.sum(case((ballot.value > 0, 1), else_=0))
        thumbs = select(ballot.model, ups, func.count()).group_by(ballot.model)
        if since is not None:
            thumbs = thumbs.where(ballot.at >= since)

        def read(connection: Connection) -> VoteTally:
            counted = [
                _count(model_a, model_b, Winner(winner), count)
                for model_a, model_b, winner, count in connection.execute(pairs)
            ]
            given = {model: (int(up), count - int(up)) for model, up, count in connection.execute(thumbs)}
            return VoteTally(counted, given)

        return await self._database.run(read, reading=True)


def _count(model_a: str, model_b: str, winner: Winner, count: int) -> PairVotes:
    """Returns comparisons of two models with the same result."""
    wins = {Winner.A: (count, 0), Winner.B: (0, count), Winner.TIE: (0, 0)}[winner]
    return PairVotes((model_a, model_b), wins, count if winner is Winner.TIE else 0)
