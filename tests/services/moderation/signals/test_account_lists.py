"""Look-ups in public lists of spammers, over HTTP on loopback, and their part in moderation."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from aiohttp import web

from core.db.database import Database
from core.redis.client import open_redis
from services.moderation.case import Stage
from services.moderation.domain.message import AuthorKind
from services.moderation.domain.verdict import Category
from services.moderation.signals.account_lists import AccountList, AccountLists, LookupLimits
from tests.support.clock import ManualClock
from tests.support.moderation_harness import (
    NEWCOMER,
    OUTAGE,
    ModerationHarness,
    RecordingGroup,
    ScriptedJudge,
    judged,
)

pytestmark = pytest.mark.integration

CAS_KNOWN = {"ok": True, "result": {"offenses": 3, "messages": ["..."], "time_added": "2026-01-01T00:00:00Z"}}
CAS_UNKNOWN = {"ok": False, "description": "Record not found."}
LOLS_KNOWN = {"ok": True, "user_id": 7, "banned": True, "when": "2026-01-01", "offenses": 4, "spam_factor": 90.5}
LOLS_UNKNOWN = {"ok": True, "user_id": 7, "banned": False}


class ListServer:
    """A server of both lists."""

    def __init__(self) -> None:
        self.answers: dict[AccountList, Callable[[], web.Response]] = {
            AccountList.CAS: lambda: web.json_response(CAS_UNKNOWN),
            AccountList.LOLS: lambda: web.json_response(LOLS_UNKNOWN),
        }
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None
        self.addresses: dict[AccountList, str] = {}

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if self.gate is not None:
            await self.gate.wait()
        return self.answers[AccountList(request.path.strip("/"))]()

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/{list}", self.handle)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.addresses = {each: f"http://127.0.0.1:{port}/{each.value}?id={{id}}" for each in AccountList}
        return runner


@pytest.fixture
async def lists() -> AsyncIterator[ListServer]:
    server = ListServer()
    runner = await server.start()
    yield server
    if server.gate is not None:
        server.gate.set()
    await runner.cleanup()


@pytest.fixture
async def accounts(lists: ListServer, clock: ManualClock) -> AsyncIterator[AccountLists]:
    found = AccountLists(
        list(AccountList), clock, limits=LookupLimits(timeout_s=2.0, failures=2), addresses=lists.addresses
    )
    yield found
    await found.close()


@pytest.mark.parametrize(
    ("which", "answer"), [(AccountList.CAS, CAS_KNOWN), (AccountList.LOLS, LOLS_KNOWN)], ids=["cas", "lols"]
)
async def test_account_is_listed_where_one_list_has_it(
    lists: ListServer, accounts: AccountLists, which: AccountList, answer: dict[str, object]
) -> None:
    assert not await accounts.is_listed(7)
    lists.answers[which] = lambda: web.json_response(answer)
    assert await accounts.is_listed(8)
    assert sorted(lists.asked) == ["/cas?id=7", "/cas?id=8", "/lols?id=7", "/lols?id=8"]


async def test_answer_is_kept_for_six_hours(lists: ListServer, accounts: AccountLists, clock: ManualClock) -> None:
    await accounts.is_listed(7)
    await accounts.is_listed(7)
    assert len(lists.asked) == 2
    clock.shift(LookupLimits().kept_s + 1)
    await accounts.is_listed(7)
    assert len(lists.asked) == 4


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.Response(status=502, text="<html>Bad Gateway</html>"),
        lambda: web.Response(text="not json"),
        lambda: web.json_response(["ok"]),
        lambda: web.json_response({"ok": "yes", "banned": 1}),
        lambda: web.Response(body=b" " * 100_000),
        lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}),
    ],
    ids=["status", "no json", "no object", "wrong types", "too long", "redirect"],
)
async def test_odd_answer_is_no_signal_and_rests_the_list(
    lists: ListServer, accounts: AccountLists, clock: ManualClock, answer: Callable[[], web.Response]
) -> None:
    lists.answers = dict.fromkeys(AccountList, answer)
    assert [await accounts.is_listed(number) for number in range(5)] == [False] * 5
    assert len(lists.asked) == 4
    clock.shift(61)
    lists.answers[AccountList.CAS] = lambda: web.json_response(CAS_KNOWN)
    assert await accounts.is_listed(9)


async def test_silent_list_holds_a_message_no_longer_than_the_timeout(lists: ListServer, clock: ManualClock) -> None:
    lists.gate = asyncio.Event()
    accounts = AccountLists([AccountList.CAS], clock, limits=LookupLimits(timeout_s=0.05), addresses=lists.addresses)
    found = await asyncio.wait_for(asyncio.gather(*map(accounts.is_listed, range(20))), timeout=10)
    assert not any(found)
    await accounts.close()


@pytest.fixture
async def watched(database: Database, accounts: AccountLists, clock: ManualClock) -> ModerationHarness:
    """A group whose operator asks the lists."""
    harness = ModerationHarness(database, open_redis(None), clock, RecordingGroup(), ScriptedJudge(), accounts=accounts)
    await harness.groups.change(harness.settings)
    return harness


class TestModeration:
    async def test_listed_newcomer_is_judged_and_kept_on_the_model_s_word(
        self, watched: ModerationHarness, lists: ListServer
    ) -> None:
        lists.answers[AccountList.CAS] = lambda: web.json_response(CAS_KNOWN)
        watched.judge.default = judged(Category.OK, 99)
        outcome = await watched.pipeline.handle(watched.message("hi all"), watched.settings)
        assert (outcome.stage, watched.judge.request_count, watched.group.actions) == (Stage.PASSED, 1, [])

    async def test_unlisted_newcomer_s_greeting_is_not_judged(self, watched: ModerationHarness) -> None:
        await watched.pipeline.handle(watched.message("hi all"), watched.settings)
        assert watched.judge.request_count == 0

    async def test_listing_never_convicts_while_no_model_answers(
        self, watched: ModerationHarness, lists: ListServer
    ) -> None:
        """Not even with a risky feature, as long as the local score of the words alone is below 90."""
        lists.answers = dict.fromkeys(AccountList, lambda: web.json_response({**CAS_KNOWN, "banned": True}))
        watched.judge.default, watched.judge.fixed_score = OUTAGE, 89
        advert = watched.message("Earn 500 a day, join https://t.me/+AbCdEf")
        outcome = await watched.pipeline.handle(advert, watched.settings)
        assert (outcome.stage, watched.group.actions) == (Stage.WAITS, [])

    async def test_established_member_is_not_looked_up(self, watched: ModerationHarness, lists: ListServer) -> None:
        await watched.newcomers.trust(watched.settings.group_id, NEWCOMER)
        await watched.pipeline.handle(watched.message("write me about daily pay of 500 dollars"), watched.settings)
        assert lists.asked == []

    async def test_channel_is_not_looked_up(self, watched: ModerationHarness, lists: ListServer) -> None:
        """The lists know people."""
        said = watched.message("write me about daily pay of 500 dollars")
        channel = replace(said.author, id=-1001, kind=AuthorKind.CHANNEL)
        await watched.pipeline.handle(replace(said, author=channel), watched.settings)
        assert lists.asked == []
