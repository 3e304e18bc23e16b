"""Cost per message of all steps before the judge, and quality of the local score outside its training groups."""

import argparse
import asyncio
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path

import structlog

from core.clock import SystemClock
from core.db.database import Database
from core.redis.client import open_redis
from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.domain.policy import HIGH, VERY_HIGH
from services.moderation.domain.settings import AppliesTo, Duplicates, Flood, LinkPolicy, RuleSet
from services.moderation.screening.features import extract_features
from services.moderation.screening.rate_windows import RateWindows
from services.moderation.screening.rules import RuleEngine
from services.moderation.spam_score.base_model import STARTER, Example, fit, starter_examples, to_score
from services.moderation.spam_score.scorer import SpamScorer
from services.moderation.spam_score.validation import cross_validate, drop_duplicates
from services.moderation.spam_score.vectorizer import vectorize
from services.moderation.text.normalise import Normal, normalise
from tests.support.processes.redis_server import RedisServer

GROUP = -1001
EVERYTHING = RuleSet(
    banned=tuple(f"banned{number}" for number in range(100)),
    links=LinkPolicy.LISTED,
    domains=tuple(f"domain{number}.example" for number in range(20)),
    forwards=AppliesTo.NEWCOMERS,
    flood=Flood(),
    duplicates=Duplicates(),
    mixed_scripts=True,
)
Step = Callable[[GroupMessage, Normal, frozenset[str]], Awaitable[object]]


def _message(text: str, number: int) -> GroupMessage:
    author = Author(number % 50, AuthorKind.USER, "Somebody")
    return GroupMessage(GROUP, (number,), author, datetime.now(UTC), text=text)


def _texts() -> dict[str, list[str]]:
    """Texts by their kind; the starter set is a mixture of group talk and spam."""
    starter_texts = [json.loads(line)["text"] for line in STARTER.read_text("utf-8").splitlines()]
    long = " ".join(starter_texts)[:4096]
    return {
        "the starter set (median 65 characters)": starter_texts,
        "300 characters": [(text * 20)[:300] for text in starter_texts[::4]],
        "4,096 characters": [long] * 30,
        "4,096 zero-width characters": ["a\u200b" * 2048] * 30,
    }


async def cost(rounds: int) -> None:
    """Measures wall-clock and CPU time of each step, one message at a time."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = RedisServer(directory)
        await server.start()
        stack.push_async_callback(server.stop)
        redis, embedded = open_redis(server.url), open_redis(None)
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(embedded.aclose)
        database = Database(f"sqlite:///{directory / 'understudy.db'}")
        await database.start()
        stack.push_async_callback(database.close)
        score = SpamScorer(database, SystemClock())
        await score.warm()
        for number in range(0, 200, 5):
            each = _message(_texts()["300 characters"][number % 100], number)
            normal = normalise(each.text)
            await score.learn(GROUP, normal, extract_features(each, normal), is_spam=number % 2 == 0)

        def check(rules: RuleEngine, rule_set: RuleSet) -> Step:
            return lambda each, normal, _: rules.check(each, normal, rule_set, is_newcomer=True)

        async def run_normalise(each: GroupMessage, _normal: Normal, _found: frozenset[str]) -> object:
            return normalise(each.text)

        async def run_features(each: GroupMessage, normal: Normal, _found: frozenset[str]) -> object:
            return extract_features(each, normal)

        alone, shared, inside = (RuleEngine(RateWindows(store, "bench")) for store in (None, redis, embedded))

        async def run_all(each: GroupMessage, _normal: Normal, _found: frozenset[str]) -> object:
            normal = normalise(each.text)
            await shared.check(each, normal, EVERYTHING, is_newcomer=True)
            return await score.score(GROUP, normal, extract_features(each, normal))

        steps: dict[str, Step] = {
            "normalise": run_normalise,
            "rules, none set": check(alone, RuleSet()),
            "rules, all set, no Redis": check(alone, EVERYTHING),
            "rules, all set, embedded store": check(inside, EVERYTHING),
            "rules, all set, Redis": check(shared, EVERYTHING),
            "features": run_features,
            "score (group has learned 40)": lambda _, normal, found: score.score(GROUP, normal, found),
            "all of it, rules over Redis": run_all,
        }
        for kind, texts in _texts().items():
            await _table(kind, texts, steps, rounds)


async def _table(kind: str, texts: list[str], steps: Mapping[str, Step], rounds: int) -> None:
    print(f"\n{kind}: milliseconds a message\n  {'':<34}{'median':>9}{'95th':>9}{'CPU mean':>10}")
    for name, step in steps.items():
        taken: list[float] = []
        cpu = 0.0
        for turn in range(rounds):
            for number, text in enumerate(texts):
                each = _message(text, turn * len(texts) + number)
                normal = normalise(text)
                found = extract_features(each, normal)
                cpu_before, before = time.process_time(), time.perf_counter()
                await step(each, normal, found)
                taken.append((time.perf_counter() - before) * 1000)
                cpu += time.process_time() - cpu_before
        cuts = statistics.quantiles(taken, n=20)
        print(f"  {name:<34}{statistics.median(taken):>9.3f}{cuts[18]:>9.3f}{cpu / len(taken) * 1000:>10.3f}")


def quality(examples: list[Example]) -> None:
    """Measures the chosen model by source, and with fewer examples."""
    validation = cross_validate(examples)
    for limit in (50, HIGH, VERY_HIGH):
        counts = validation.count(limit)
        print(f"\nfrom {limit}: precision {counts.precision:.3f}, recall {counts.recall:.3f}", end=", ")
        print(f"false positives {counts.false_positives} of {counts.ham}")
        for source in validation.sources:
            part = validation.count(limit, source)
            print(f"  {source:<16}{part.precision:7.3f}{part.recall:7.3f}   {part.false_positives} of {part.ham}")
    names = list(dict.fromkeys(each.source for each in examples))
    print(f"\nHow much examples matter: recall and false positives of the rest, from {HIGH}")
    for count in (2, 4, 8, 12):
        found = missed = false = ham = 0
        for start in range(len(names)):
            known = {names[(start + step * 3) % len(names)] for step in range(count)}
            spam_there, ham_there, hits, wrong = _held_out(examples, known)
            found, missed, false, ham = found + hits, missed + spam_there - hits, false + wrong, ham + ham_there
        print(f"  {count:>2} sources: recall {found / (found + missed):.3f}, false positives {false / ham:.3%}")


def _held_out(examples: list[Example], known: set[str]) -> tuple[int, int, int, int]:
    trained = fit([each for each in examples if each.source in known])
    rest = [each for each in examples if each.source not in known]
    scores = [to_score(trained.dot(vectorize(each.folded, each.features))) for each in rest]
    hits = sum(each.is_spam and score >= HIGH for each, score in zip(rest, scores, strict=True))
    wrong = sum(not each.is_spam and score >= HIGH for each, score in zip(rest, scores, strict=True))
    spam = sum(each.is_spam for each in rest)
    return spam, len(rest) - spam, hits, wrong


def start() -> None:
    """Measures time and memory of the first score, in its own process."""
    code = (
        "import resource, time\n"
        "def mb(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "import services.moderation.spam_score.scorer, services.moderation.screening.rules\n"
        "before, began = mb(), time.perf_counter()\n"
        "from services.moderation.spam_score.base_model import fit, starter_examples\n"
        "weights = fit(starter_examples()).dense()\n"
        "print(f'read and train {time.perf_counter() - began:.2f} s, memory {before} to {mb()} MB')\n"
    )
    print("\nFirst use:", subprocess.check_output([sys.executable, "-c", code], text=True).strip())


def main() -> None:
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    warnings.simplefilter("ignore")
    start()
    asyncio.run(cost(options.rounds))
    quality(drop_duplicates(starter_examples()))


if __name__ == "__main__":
    main()
