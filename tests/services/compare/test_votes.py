"""The vote store on both engines: one vote per comparison and person, thumbs under answers, sums by model."""

import pytest
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart
from sqlalchemy import text

from core.db.database import Database
from core.messages import ConversationKey, Surface, UserRef
from services.chat.store.conversation import TurnStatus
from services.chat.store.turns import TurnStore
from services.compare.votes import OPEN_FOR, ModelVotes, Votes, Winner
from services.pseudonyms import load_pseudonyms
from tests.support.clock import ManualClock

pytestmark = pytest.mark.integration

ANN, BOB = UserRef("telegram:7"), UserRef("telegram:9")
PAIR = ("a/m", "b/n")


async def votes_on(database: Database, clock: ManualClock) -> Votes:
    return Votes(database, clock, await load_pseudonyms(database))


async def test_a_comparison_takes_one_vote_of_its_asker(database: Database, clock: ManualClock) -> None:
    votes = await votes_on(database, clock)
    number = await votes.open(ANN, PAIR, "job 1")
    assert await votes.open(ANN, PAIR, "job 1") == number, "a repeated job opens none of its own"
    assert await votes.vote(number, BOB, Winner.A) is None
    assert await votes.vote(number + 1, ANN, Winner.A) is None
    first = await votes.vote(number, ANN, Winner.B)
    second = await votes.vote(number, ANN, Winner.A)
    assert first == second
    assert second is not None
    assert (second.winner, second.models) == (Winner.B, PAIR)


async def test_standings_add_comparisons_and_thumbs(database: Database, clock: ManualClock) -> None:
    votes, turns = await votes_on(database, clock), TurnStore(database, clock)
    for job, (pair, winner) in enumerate([(PAIR, Winner.A), (PAIR, Winner.TIE), (("b/n", "a/m"), Winner.B)]):
        await votes.vote(await votes.open(ANN, pair, str(job)), ANN, winner)
    await votes.open(ANN, PAIR, "without a vote")
    thread = await turns.current(ConversationKey(Surface.TELEGRAM, 7))
    turn = await turns.open_turn(thread, 7, ModelRequest.user_text_prompt("Hello?"))
    await turns.close_turn(turn.id, TurnStatus.COMPLETE, [ModelResponse([TextPart("Hi")])], provider="a", model="m")
    await turns.note_answer(turn.id, [50, 51])

    async def thumb(voter: UserRef, value: int, message_id: int = 50) -> bool:
        return await votes.react(Surface.TELEGRAM, 7, message_id, voter, value)

    assert await thumb(ANN, 1)
    assert await thumb(ANN, 1, 51), "another message of the same answer is the same vote"
    assert await thumb(BOB, -1)
    assert not await thumb(BOB, 1, 52), "no answer"
    assert await votes.standings() == [
        ModelVotes("a/m", wins=2, ties=1, up=1, down=1),
        ModelVotes("b/n", losses=2, ties=1),
    ]
    await thumb(ANN, -1)
    await thumb(BOB, 0)
    assert (await votes.standings())[0] == ModelVotes("a/m", wins=2, ties=1, down=1)


async def test_comparisons_without_a_vote_expire(file: Database, clock: ManualClock) -> None:
    votes = await votes_on(file, clock)
    old, voted = await votes.open(ANN, PAIR, "1"), await votes.open(ANN, PAIR, "2")
    await votes.vote(voted, ANN, Winner.A)
    clock.shift(OPEN_FOR.total_seconds() + 1)
    await votes.open(ANN, PAIR, "3")
    assert await votes.vote(old, ANN, Winner.A) is None
    assert (await votes.standings())[0].wins == 1
    async with file.reading() as session:
        rows = (await session.execute(text("SELECT asker FROM comparisons"))).scalars().all()
    assert len(rows) == 2
    assert not any(row == "7" or "telegram" in row for row in rows), "people are named by keyed hashes"
