"""Rules of a group, checked alone and over replicas."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from core.redis.client import open_redis
from services.moderation.domain.message import GroupMessage, MediaKind
from services.moderation.domain.settings import AppliesTo, Duplicates, Flood, LinkPolicy, RuleSet
from services.moderation.screening.rate_windows import RateWindows, WindowLimits
from services.moderation.screening.rules import Rule, RuleEngine, RuleHit
from services.moderation.text.normalise import normalise
from tests.support.group_messages import NOON, message
from tests.support.processes.redis_server import RedisServer

LIMITS = WindowLimits()
LONG_ENOUGH = "buy my wonderful thing"


@pytest.fixture
def rules() -> RuleEngine:
    """Rules of a single replica."""
    return RuleEngine(RateWindows(None, "test"))


async def check(
    rules: RuleEngine, said: GroupMessage, rule_set: RuleSet, *, is_newcomer: bool = False
) -> tuple[RuleHit, ...]:
    """Returns the broken rules."""
    return await rules.check(said, normalise(said.text), rule_set, is_newcomer=is_newcomer)


@pytest.mark.parametrize(
    ("said", "rule_set", "rule", "detail"),
    [
        (message("в кaзинo!"), RuleSet(banned=("казино",)), Rule.BANNED, "казино"),
        (message("x", links=("https://a.com/secret",)), RuleSet(links=LinkPolicy.NONE), Rule.LINK, "a.com"),
        (message("x", links=("t.me/other",)), RuleSet(links=LinkPolicy.LISTED), Rule.LINK, "t.me/other"),
        (
            message("x", buttons=("https://b.com",)),
            RuleSet(links=LinkPolicy.NONE),
            Rule.LINK,
            "b.com",
        ),  # under the text
        (message(media=(MediaKind.STICKER,)), RuleSet(media=(MediaKind.STICKER,)), Rule.MEDIA, "sticker"),
    ],
)
async def test_rules_are_decisive(
    rules: RuleEngine, said: GroupMessage, rule_set: RuleSet, rule: Rule, detail: str
) -> None:
    assert await check(rules, said, rule_set) == (RuleHit(rule, detail, is_decisive=True),)
    assert await check(rules, said, RuleSet()) == ()


@pytest.mark.parametrize(
    ("said", "rule_set"),
    [
        (message("x", links=("https://docs.a.com/x",)), RuleSet(links=LinkPolicy.LISTED, domains=("a.com",))),
        (message("x", links=("https://a.com",)), RuleSet(links=LinkPolicy.NONE, domains=("a.com",))),  # always allowed
        (message("@anna, thank you!", links=("@anna",)), RuleSet(links=LinkPolicy.NOT_FROM_NEWCOMERS)),  # a mention
        (message("классика"), RuleSet(banned=("касса", "класс"))),
        (message("x", quoted="казино"), RuleSet(banned=("казино",))),  # not the author's words
        (message("hi", media=(MediaKind.PHOTO,)), RuleSet(media=(MediaKind.STICKER,))),
        (message("раypal"), RuleSet()),  # the rule is off
        (message(""), RuleSet(banned=("a", "")))
    ],
)  # fmt: skip
async def test_rules_allow(rules: RuleEngine, said: GroupMessage, rule_set: RuleSet) -> None:
    assert await check(rules, said, rule_set, is_newcomer=True) == ()


@pytest.mark.parametrize(
    ("said", "rule_set"),
    [
        (message("x", links=("https://a.com",)), RuleSet(links=LinkPolicy.NOT_FROM_NEWCOMERS)),
        (message(is_forward=True), RuleSet(forwards=AppliesTo.NEWCOMERS)),
        (message(media=(MediaKind.VIDEO,)), RuleSet(newcomer_media=(MediaKind.VIDEO,))),
    ],
)
async def test_rules_for_newcomers(rules: RuleEngine, said: GroupMessage, rule_set: RuleSet) -> None:
    assert len(await check(rules, said, rule_set, is_newcomer=True)) == 1
    assert await check(rules, said, rule_set, is_newcomer=False) == ()


@pytest.mark.parametrize(
    ("said", "rule_set", "rule"),
    [
        (message("look", is_forward=True, forwarded="казино"), RuleSet(banned=("казино",)), Rule.BANNED),
        (message("раypal"), RuleSet(mixed_scripts=True), Rule.MIXED_SCRIPT),
        # Of an established member.
        (message(is_forward=True), RuleSet(forwards=AppliesTo.EVERYBODY), Rule.FORWARD),
    ],
)
async def test_rules_that_only_escalate(rules: RuleEngine, said: GroupMessage, rule_set: RuleSet, rule: Rule) -> None:
    (hit,) = await check(rules, said, rule_set)
    assert (hit.rule, hit.is_decisive) == (rule, False)


async def test_check_sorts_decisive_first_and_shortens_details(rules: RuleEngine) -> None:
    said = message("раypal " + "ѕаlе" * 100, links=("https://" + "a" * 200 + ".com",))
    hits = await check(rules, said, RuleSet(mixed_scripts=True, links=LinkPolicy.NONE))
    assert [hit.rule for hit in hits] == [Rule.LINK, Rule.MIXED_SCRIPT]
    assert all(len(hit.detail) <= 60 for hit in hits)


class TestRuleSet:
    """Stored form of the rules."""

    def test_rule_set_round_trips_json(self) -> None:
        rule_set = RuleSet(
            banned=("казино", "easy money"), links=LinkPolicy.LISTED, domains=("a.com",), forwards=AppliesTo.NEWCOMERS,
            media=(MediaKind.STICKER,), newcomer_media=(MediaKind.VIDEO,), flood=Flood(5, 7),
            duplicates=Duplicates(4, 30, 5), mixed_scripts=True,
        )  # fmt: skip
        assert RuleSet.from_json(json.loads(json.dumps(rule_set.as_json()))) == rule_set

    def test_from_json_ignores_unknown_and_defaults_missing_keys(self) -> None:
        stored = {"version": 9, "banned": ["x"], "moods": ["good"], "flood": {"messages": 3, "pace": 1}}
        assert RuleSet.from_json(stored) == RuleSet(version=9, banned=("x",), flood=Flood(messages=3))
        assert RuleSet.from_json({}) == RuleSet()

    @pytest.mark.parametrize(
        ("stored", "prefix"),
        [
            ({"links": "some"}, "links: "),
            ({"flood": {"messages": 0}}, "flood.messages: "),
            ({"media": ["smell"]}, "media.0: "),
            ({"banned": "word"}, "banned: "),
            ({"banned": ["x"] * 1001}, "banned: "),
        ],
    )
    def test_from_json_names_invalid_value(self, stored: dict[str, object], prefix: str) -> None:
        with pytest.raises(ValueError, match=f"^{prefix}[^\n]+$"):
            RuleSet.from_json(stored)


class TestRepetition:
    """Floods and duplicates over two replicas, in the embedded store and in a real server."""

    @pytest.fixture
    async def replicas(self, redis: Redis) -> tuple[RuleEngine, RuleEngine]:
        return RuleEngine(RateWindows(redis, "test")), RuleEngine(RateWindows(redis, "test"))

    FLOOD = RuleSet(flood=Flood(messages=3, seconds=10))
    SAME = RuleSet(duplicates=Duplicates(times=3, seconds=60))

    async def test_flood_is_counted_over_replicas(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        hits = [
            await check(
                replicas[number % 2],
                message("x", number=number, sent_at=NOON + timedelta(seconds=number)),
                self.FLOOD,
                is_newcomer=True,
            )
            for number in range(4)
        ]
        assert hits[:2] == [(), ()]
        assert hits[2] == (RuleHit(Rule.FLOOD, "3 messages in 10 s", is_decisive=True),)
        assert hits[3] == (RuleHit(Rule.FLOOD, "4 messages in 10 s", is_decisive=True),)

    async def test_flood_ignores_slow_messages(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        for number in range(10):
            said = message("x", number=number, sent_at=NOON + timedelta(seconds=5 * number))
            assert await check(replicas[number % 2], said, self.FLOOD) == ()

    async def test_flood_is_counted_per_author_and_group(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        for number in range(10):
            assert await check(replicas[number % 2], message("x", number=number, author=number), self.FLOOD) == ()
            assert await check(replicas[number % 2], message("x", number=number, group=-200 - number), self.FLOOD) == ()

    async def test_a_message_counts_once_and_its_edits_not_at_all(
        self, replicas: tuple[RuleEngine, RuleEngine]
    ) -> None:
        """Handled by two replicas, an album's parts under one number, edited thrice."""
        for replica in replicas * 3:
            said = message(LONG_ENOUGH, number=1, message_ids=(1, 2, 3, 4))
            assert await check(replica, said, RuleSet(flood=Flood(2, 10), duplicates=Duplicates(2, 60))) == ()
            assert await check(replica, replace(said, message_ids=(2,), edited_at=NOON), self.FLOOD) == ()

    async def test_duplicates_compare_folded_text(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        texts = [LONG_ENOUGH, "BUY my wоnderful thing", "b\u200buy my  wonderful thing"]
        hits = [
            await check(replicas[number % 2], message(text, number=number), self.SAME, is_newcomer=True)
            for number, text in enumerate(texts)
        ]
        assert hits[:2] == [(), ()]
        assert hits[2] == (RuleHit(Rule.DUPLICATE, "the same text 3 times in 60 s", is_decisive=True),)

    @pytest.mark.parametrize(
        "sent",
        [
            {"reply_to": 5},
            {"text": "/roll@dicegame_bot"},
            {"text": "/roll 3d6"},
            {"text": "Thank you so much!"},
            {"text": "@anna спасибо большое!!"},
            {"text": "Vielen lieben Dank!"},
            {"text": "Teşekkürler"},
            {"text": "謝謝你"},
            {"media": (MediaKind.PHOTO,)},  # several at once, not as an album
            {"is_forward": True, "forwarded": "news"},
        ],
        ids=str,
    )
    async def test_everyday_habits_are_no_flood(
        self, replicas: tuple[RuleEngine, RuleEngine], sent: dict[str, Any]
    ) -> None:
        """Of a newcomer as well: ten at once, the same text each time."""
        for number in range(10):
            said = message(**{"text": LONG_ENOUGH, **sent, "number": number})
            rule_set = RuleSet(flood=Flood(3, 10), duplicates=Duplicates(3, 60))
            assert await check(replicas[number % 2], said, rule_set, is_newcomer=True) == ()

    async def test_media_of_different_seconds_is_a_flood(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        for number in range(3):
            said = message(number=number, media=(MediaKind.PHOTO,), sent_at=NOON + timedelta(seconds=number))
            hits = await check(replicas[number % 2], said, self.FLOOD, is_newcomer=True)
        assert [hit.rule for hit in hits] == [Rule.FLOOD]

    async def test_repetition_of_a_member_only_escalates(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        rule_set = RuleSet(flood=Flood(3, 10), duplicates=Duplicates(3, 60))
        for number in range(3):
            hits = await check(replicas[number % 2], message(LONG_ENOUGH, number=number), rule_set)
        assert [(hit.rule, hit.is_decisive) for hit in hits] == [(Rule.FLOOD, False), (Rule.DUPLICATE, False)]

    async def test_duplicates_by_several_authors_only_escalate(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        hits = [
            await check(
                replicas[number % 2], message("Happy birthday, dear Ann!", number=number, author=number), self.SAME
            )
            for number in range(3)
        ]
        assert [[hit.is_decisive for hit in found] for found in hits] == [[], [], [False]]

    @pytest.mark.parametrize("text", ["ok", "+1", "спасибо", "👍👍👍👍👍👍👍👍👍👍👍👍👍", ""])
    async def test_duplicates_ignore_short_texts(self, replicas: tuple[RuleEngine, RuleEngine], text: str) -> None:
        for number in range(5):
            assert await check(replicas[number % 2], message(text, number=number), self.SAME) == ()

    async def test_late_message_counts_at_its_own_time(self, replicas: tuple[RuleEngine, RuleEngine]) -> None:
        """Later messages are not counted for it, and stay counted."""
        for number in (1, 2):
            await check(replicas[0], message("x", number=number, sent_at=NOON + timedelta(seconds=30)), self.FLOOD)
        assert await check(replicas[1], message("x", number=3, sent_at=NOON), self.FLOOD) == ()
        fourth = message("x", number=4, sent_at=NOON + timedelta(seconds=31))
        assert len(await check(replicas[1], fourth, self.FLOOD)) == 1

    async def test_windows_expire_and_are_bounded(self, replicas: tuple[RuleEngine, RuleEngine], redis: Redis) -> None:
        for number in range(LIMITS.members + 20):
            await check(
                replicas[0], message(LONG_ENOUGH, number=number), RuleSet(flood=Flood(2, 10), duplicates=Duplicates())
            )
        keys = [key async for key in redis.scan_iter("test:*")]
        assert len(keys) == 2
        for key in keys:
            assert await redis.zcard(key) == LIMITS.members
            assert 0 < await redis.ttl(key) <= Duplicates().seconds + LIMITS.grace_s
            assert "wonderful" not in key

    async def test_windows_store_no_text(self, replicas: tuple[RuleEngine, RuleEngine], redis: Redis) -> None:
        await check(replicas[0], message(LONG_ENOUGH), self.SAME)
        (key,) = [key async for key in redis.scan_iter("test:*")]
        assert "wonderful" not in key + str(await redis.zrange(key, 0, -1))


async def test_check_takes_one_round_trip(redis_server: RedisServer) -> None:
    async with open_redis(redis_server.url) as redis, open_redis(redis_server.url) as other:
        rules = RuleEngine(RateWindows(redis, "test"))
        await redis.ping()
        before = (await other.info("stats"))["total_reads_processed"]
        await check(rules, message(LONG_ENOUGH), RuleSet(flood=Flood(), duplicates=Duplicates()))
        after = (await other.info("stats"))["total_reads_processed"]
        # The second INFO of `other` is one of them.
        assert after - before <= 2


async def test_check_without_windows_uses_no_redis() -> None:
    class Untouchable:
        def __getattr__(self, name: str) -> None:
            raise AssertionError(f"Redis was asked: {name}")

    assert (
        await check(RuleEngine(RateWindows(Untouchable(), "test")), message(LONG_ENOUGH), RuleSet(banned=("x",))) == ()
    )


class TestOutage:
    """During a Redis outage a replica continues with its own windows."""

    @pytest.fixture
    async def open_rules(self, redis_server: RedisServer) -> AsyncIterator[RuleEngine]:
        async with open_redis(redis_server.url) as redis:
            yield RuleEngine(RateWindows(redis, "test"))

    async def test_flood_is_detected_during_outage(self, open_rules: RuleEngine, redis_server: RedisServer) -> None:
        flood = RuleSet(flood=Flood(messages=4, seconds=10))
        for number in (1, 2):
            assert await check(open_rules, message("x", number=number), flood) == ()
        await redis_server.stop()
        assert await check(open_rules, message("x", number=3), flood) == ()
        assert len(await check(open_rules, message("x", number=4), flood)) == 1

    async def test_local_windows_are_bounded(self) -> None:
        windows = RateWindows(None, "test", WindowLimits(local_windows=10))
        rules = RuleEngine(windows)
        for number in range(100):
            await check(rules, message("x", number=number, author=number), RuleSet(flood=Flood()))
        assert len(windows._local) == 10
