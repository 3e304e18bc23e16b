"""Stores comparisons with their votes, and thumbs under answers, and sums them by model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from sqlalchemy import Connection, case, delete, func, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.operator_tables import AnswerVoteRow, ComparisonRow
from core.db.tables import AnswerMessageRow, TurnRow
from core.messages import Surface, UserRef
from services.pseudonyms import Pseudonyms

OPEN_FOR = timedelta(days=7)
"""Time in which a comparison can be voted on."""


class Winner(StrEnum):
    """The result of a comparison."""

    A = "a"
    B = "b"
    TIE = "tie"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison.

    Args:
        models: of the sides a and b, as `<provider>/<model>`.
        winner: None before the vote.
    """

    id: int
    models: tuple[str, str]
    winner: Winner | None


@dataclass(frozen=True, slots=True)
class ModelVotes:
    """Votes about one model.

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
    def share(self) -> float:
        """The share of comparisons that it won, a tie as half of one; 0 without any."""
        count = self.wins + self.losses + self.ties
        return (self.wins + self.ties / 2) / count if count else 0.0


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
        """Returns the votes by model, the model with the largest share of won comparisons first."""
        pairs = (
            select(ComparisonRow.model_a, ComparisonRow.model_b, ComparisonRow.winner, func.count())
            .where(ComparisonRow.winner.is_not(None))
            .group_by(ComparisonRow.model_a, ComparisonRow.model_b, ComparisonRow.winner)
        )
        ups = func.sum(case((AnswerVoteRow.value > 0, 1), else_=0))
        thumbs = select(AnswerVoteRow.model, ups, func.count()).group_by(AnswerVoteRow.model)

        def read(connection: Connection) -> Mapping[str, ModelVotes]:
            found: defaultdict[str, ModelVotes] = defaultdict(lambda: ModelVotes(""))
            for model_a, model_b, winner, count in connection.execute(pairs):
                for model, own in ((model_a, Winner.A), (model_b, Winner.B)):
                    found[model] = _add(found[model], Winner(winner), own, count)
            for model, up, count in connection.execute(thumbs):
                found[model] = replace(found[model], up=int(up), down=count - int(up))
            return found

        found = await self._database.run(read, reading=True)
        standings = [replace(standing, model=model) for model, standing in found.items()]
        return sorted(standings, key=lambda each: (-each.share, -each.wins, each.down - each.up, each.model))


def _add(standing: ModelVotes, winner: Winner, own: Winner, count: int) -> ModelVotes:
    """Adds comparisons with the same result to the standing of one side."""
    if winner is Winner.TIE:
        return replace(standing, ties=standing.ties + count)
    if winner is own:
        return replace(standing, wins=standing.wins + count)
    return replace(standing, losses=standing.losses + count)
