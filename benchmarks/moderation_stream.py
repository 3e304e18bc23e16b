"""Cost of moderation per message of a mixed stream, without the judge, and the share that the judge is asked about.

The stream is made of the starter set: talk, mostly by established members, and spam by newcomers. The judge answers
at once, so the figures are for everything else: exemptions, the message log (SQLite on disk), rules over the embedded
Redis, features, local score, policy and enforcement, without Telegram.
"""

import argparse
import asyncio
import json
import logging
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import structlog

from core.clock import SystemClock
from core.db.database import Database
from core.db.moderation_tables import ModerationMemberRow
from core.redis.client import open_redis
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.verdict import Category
from services.moderation.spam_score.examples import STARTER
from services.moderation.spam_score.scorer import SpamScorer
from tests.support.moderation_harness import GROUP, SCAM, ModerationHarness, RecordingGroup, ScriptedJudge, judged

MEMBERS = 200
SPAM_SHARE, NEWCOMER_SHARE = 0.05, 0.10
"""Share of spam, and of newcomers among the authors of the rest."""
FLOOD_FREE_S = 20
"""Seconds between two messages, so that the stream is no flood."""


@dataclass(frozen=True)
class StreamMessage:
    """A message of the stream."""

    text: str
    author_id: int
    is_spam: bool


def stream(length: int, seed: int) -> list[StreamMessage]:
    """Returns a mixed stream, deterministic by seed."""
    rows = [json.loads(line) for line in STARTER.read_text("utf-8").splitlines() if line.strip()]
    spam = [row["text"] for row in rows if row["label"] == "spam"]
    ham = [row["text"] for row in rows if row["label"] == "ham"]
    chance = random.Random(seed)
    messages: list[StreamMessage] = []
    for number in range(length):
        if chance.random() < SPAM_SHARE:
            messages.append(StreamMessage(chance.choice(spam), 1_000_000 + number, is_spam=True))
        elif chance.random() < NEWCOMER_SHARE:
            messages.append(StreamMessage(chance.choice(ham), 2_000_000 + number, is_spam=False))
        else:
            messages.append(StreamMessage(chance.choice(ham), number % MEMBERS, is_spam=False))
    return messages


async def run(length: int, seed: int) -> None:
    """Processes the stream and prints the figures."""
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{Path(directory) / 'stream.db'}")
        await database.start()
        judge, scores = ScriptedJudge(), SpamScorer(database, clock)
        harness = ModerationHarness(database, open_redis(None), clock, RecordingGroup(), judge, scores)
        await scores.warm()
        await harness.groups.put(harness.settings)
        async with database.session() as session:
            long_ago = clock.now() - timedelta(days=60)
            for member_id in range(MEMBERS):
                session.add(
                    ModerationMemberRow(group_id=GROUP, member_id=member_id, first_seen=long_ago, meaningful=50)
                )
        walls: list[float] = []
        asked = {True: 0, False: 0}
        messages = stream(length, seed)
        cpu = time.process_time()
        for number, one in enumerate(messages):
            judge.default = SCAM if one.is_spam else judged(Category.OK, 99)
            author = Author(one.author_id, AuthorKind.USER, "Somebody")
            sent_at = clock.now() + timedelta(seconds=FLOOD_FREE_S * number)
            message = replace(harness.message(one.text, number + 1), author=author, sent_at=sent_at)
            before, began = judge.request_count, time.perf_counter()
            await harness.pipeline.handle(message, harness.settings)
            walls.append(time.perf_counter() - began)
            asked[one.is_spam] += judge.request_count - before
        cpu = time.process_time() - cpu
        await database.close()
    spam = sum(one.is_spam for one in messages)
    cuts = statistics.quantiles(walls, n=20)
    print(f"{length} messages, {spam} of them spam")
    print(f"  CPU per message          {1000 * cpu / length:.2f} ms")
    print(f"  wall, median and 95th    {1000 * cuts[9]:.2f} ms, {1000 * cuts[18]:.2f} ms")
    print(f"  a judge is asked about   {100 * sum(asked.values()) / length:.1f} % of all")
    print(f"    of the spam            {100 * asked[True] / spam:.1f} %")
    print(f"    of the rest            {100 * asked[False] / (length - spam):.1f} %")


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(run(options.messages, options.seed))


if __name__ == "__main__":
    main()
