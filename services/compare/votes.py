"""Stores comparisons with their votes, and thumbs under answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import Connection, case, delete, func, select, update

from core.clock import Clock
from core.db.database import Database
from core.db.operator_tables import AnswerVoteRow, ComparisonRow
from core.db.tables import AnswerMessageRow, TurnRow
from core.messages import Surface, UserRef
from services.compare.standings import ModelVotes, PairVotes, VoteTally
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
