"""Cost of moderation per message of a mixed stream, without the judge, and the share that the judge is asked about.

The stream is made of everyday talk in two languages (`texts/everyday_talk.txt`, which the local score was not trained
on), or of the starter set, which is hard on purpose; and of spam by newcomers. The judge answers at once, so the
figures are for everything else: exemptions, the message log (SQLite on disk), rules over the embedded Redis, features,
local score, policy and enforcement, without Telegram. The clock is moved.
"""

import argparse
import asyncio
import json
import logging
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import structlog

from core.db.database import Database
from core.db.moderation_tables import ModerationMemberRow
from core.redis.client import open_redis
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.verdict import Category
from services.moderation.spam_score.base_model import STARTER
from services.moderation.spam_score.scorer import SpamScorer
from tests.support.clock import ManualClock
from tests.support.moderation_harness import GROUP, SCAM, ModerationHarness, RecordingGroup, ScriptedJudge, judged

MEMBERS = 200
SPAM_SHARE, NEWCOMER_SHARE = 0.05, 0.10
"""Share of spam, and of newcomers among the authors of the rest."""
PAUSE_S = 30
"""Seconds between two messages: 20,000 make a week."""
EVERYDAY_TALK = Path(__file__).parent / "texts" / "everyday_talk.txt"


@dataclass(frozen=True)
class StreamMessage:
    """A message of the stream."""

    text: str
    author_id: int
    is_spam: bool


@dataclass
class Played:
    """The outcome of a stream.

    Args:
        asked: requests to the judge, by whether the message was spam.
        touched: honest messages that were deleted, and authors of such who were muted or banned.
        walls: seconds of each message.
    """

    asked: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    touched: int = 0
    deleted: int = 0
    walls: list[float] = field(default_factory=list)


def stream(length: int, seed: int, talk: str = "starter") -> list[StreamMessage]:
    """Returns a mixed stream, deterministic by seed. `talk` is that of honest people: `everyday` or `starter`."""
    rows = [json.loads(line) for line in STARTER.read_text("utf-8").splitlines() if line.strip()]
    spam = [row["text"] for row in rows if row["label"] == "spam"]
    lines = EVERYDAY_TALK.read_text("utf-8").splitlines()
    ham = [row["text"] for row in rows if row["label"] == "ham"] if talk == "starter" else lines
    chance = random.Random(seed)

    def say() -> str:
        # Two sentences as often as one: people do not repeat each other's lines all day.
        return chance.choice(ham) if talk == "starter" or chance.random() < 0.5 else " ".join(chance.sample(ham, 2))

    messages: list[StreamMessage] = []
    for number in range(length):
        if chance.random() < SPAM_SHARE:
            messages.append(StreamMessage(chance.choice(spam), 1_000_000 + number, is_spam=True))
        elif chance.random() < NEWCOMER_SHARE:
            messages.append(StreamMessage(say(), 2_000_000 + number, is_spam=False))
        else:
            messages.append(StreamMessage(say(), number % MEMBERS, is_spam=False))
    return messages


async def play(harness: ModerationHarness, clock: ManualClock, messages: list[StreamMessage]) -> Played:
    """Plays a stream through the pipeline; the judge tells spam from the rest."""
    played, numbers, authors = Played(), set[int](), set[int]()
    judge, group = harness.judge, harness.group
    for number, one in enumerate(messages, start=1):
        clock.shift(PAUSE_S)
        judge.default = SCAM if one.is_spam else judged(Category.OK, 99)
        if not one.is_spam:
            numbers.add(number)
            authors.add(one.author_id)
        author = Author(one.author_id, AuthorKind.USER, "Somebody")
        before, began = judge.request_count, time.perf_counter()
        await harness.pipeline.handle(replace(harness.message(one.text, number), author=author), harness.settings)
        played.walls.append(time.perf_counter() - began)
        played.asked[one.is_spam] += judge.request_count - before
    for action in group.actions:
        is_deletion = action[0] == "delete"
        played.touched += not numbers.isdisjoint(action[1]) if is_deletion else action[1] in authors
        played.deleted += is_deletion
    return played


async def establish_members(database: Database, clock: ManualClock) -> None:
    """Makes the regular authors of the stream members of long standing."""
    long_ago = clock.now() - timedelta(days=60)
    async with database.session() as session:
        for member_id in range(MEMBERS):
            session.add(ModerationMemberRow(group_id=GROUP, member_id=member_id, first_seen=long_ago, meaningful=50))


async def run(options: argparse.Namespace) -> None:
    """Plays the stream and prints the figures."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{Path(directory) / 'stream.db'}")
        await database.start()
        judge, scores = ScriptedJudge(), SpamScorer(database, clock)
        harness = ModerationHarness(database, open_redis(None), clock, RecordingGroup(), judge, scores)
        await scores.warm()
        await harness.groups.change(harness.settings)
        if not options.first_week:
            await establish_members(database, clock)
        messages = stream(options.messages, options.seed, options.talk)
        cpu = time.process_time()
        played = await play(harness, clock, messages)
        cpu = time.process_time() - cpu
        await database.close()
    length, spam = len(messages), sum(one.is_spam for one in messages)
    cuts = statistics.quantiles(played.walls, n=20)
    asked = sum(played.asked.values())
    print(f"{length} messages, {spam} of them spam; {options.talk} talk{', first week' if options.first_week else ''}")
    print(f"  honest messages touched  {played.touched}")
    print(f"  messages deleted         {played.deleted}")
    print(f"  CPU per message          {1000 * cpu / length:.2f} ms")
    print(f"  wall, median and 95th    {1000 * cuts[9]:.2f} ms, {1000 * cuts[18]:.2f} ms")
    print(f"  never judged             {100 - 100 * asked / length:.1f} %")
    print(f"  a judge is asked about   {100 * played.asked[True] / spam:.1f} % of the spam")
    print(f"                           {100 * played.asked[False] / (length - spam):.1f} % of the rest")


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--talk", choices=("everyday", "starter"), default="everyday")
    parser.add_argument("--first-week", action="store_true", help="no member is known yet, and joins are not seen")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(run(options))


if __name__ == "__main__":
    main()
