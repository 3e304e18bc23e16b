"""`/provider`: table, commands, test request, audit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import text as sql
from structlog.testing import capture_logs

from bot.operators.audit import describe_detail
from bot.operators.formatting import Wording
from bot.operators.provider import ProviderCommands, provider_table
from core.config.providers import ProviderKind, ProviderSettings
from core.db.database import Database
from core.i18n import Texts
from core.redis.client import open_redis
from services.admin.audit import Audit, AuditEntry
from services.admin.providers import ProviderAdmin
from services.admin.undo import Act, RoutingAct, UndoResult, UndoStore
from services.llm.models.trial import MAX_TOKENS
from services.llm.providers.builder import ModelBuilder
from services.llm.request import Candidate, Capability, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.faults.outcomes import Outcome
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.state.shared_state import SharedRouting
from services.llm.routing.status import ProviderState, ProviderStatus
from services.usage.ledger import UsageLedger
from services.usage.totals import UsageTotals
from tests.support.clock import ManualClock
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import KEY, provider_at
from tests.support.fake_llm.server import LLMServer

ADMIN = 42
REDIS_UNAVAILABLE = Texts().get("operator-redis-gone")
NOT_AUDITED = Texts().get("not-audited")


def provider(name: str, **changes: object) -> ProviderSettings:
    """A provider whose server is never reached, unless changed."""
    settings = ProviderSettings(
        id=name, kind=ProviderKind.OPENAI_COMPATIBLE, models=("m", "n"), base_url="http://127.0.0.1:1/v1"
    )
    return replace(settings, **changes)


A, B = provider("a"), provider("b")
UNSET = provider("c", missing="C_API_KEY is not set")


@dataclass(frozen=True, slots=True)
class ProviderHarness:
    """The commands with the services behind them."""

    commands: ProviderCommands
    fallback: LLMProviderFallback
    shared: SharedRouting
    audit: Audit
    database: Database
    clock: ManualClock
    admin: ProviderAdmin
    undoable: UndoStore

    async def run(self, arguments: str) -> str:
        return await self.commands.run(arguments, ADMIN)

    def status(self, name: str) -> ProviderStatus:
        return next(each for each in self.fallback.get_provider_status().providers if each.provider == name)

    def table(self) -> str:
        return provider_table(self.fallback.get_provider_status(), self.clock.time())

    def block(self, name: str) -> list[str]:
        """Return the lines of the table about one provider."""
        blocks = self.table().split("\n\n")
        found = next(block for block in blocks if block.partition(". ")[2].startswith(f"{name}:"))
        return [line.strip() for line in found.splitlines()]

    async def candidates(self) -> list[str]:
        """Return the providers of the next request in order."""
        attempts = await self.fallback.begin(RequestSpec("test"))
        attempts.close()
        return [candidate.provider.id for candidate in attempts.queue.candidates]

    async def audited(self) -> list[tuple[str, str | None, str | None]]:
        """Return action, target and detail of each entry, oldest first."""
        entries: list[AuditEntry] = await self.audit.recent()
        assert all(entry.actor_id == ADMIN for entry in entries)
        say = Wording(Texts(strict=True))
        return [(entry.action, entry.target, describe_detail(entry.detail, say) or None) for entry in reversed(entries)]


@asynccontextmanager
async def provider_harness(
    tmp_path: Path, *providers: ProviderSettings, connected: bool = True
) -> AsyncIterator[ProviderHarness]:
    """Open the commands over a database and the embedded store."""
    clock = ManualClock()
    async with AsyncExitStack() as stack:
        redis = open_redis(None)
        stack.push_async_callback(redis.aclose)
        shared = SharedRouting(redis, "test", clock)
        if connected:
            await shared.start()
            stack.push_async_callback(shared.close)
        database = Database(f"sqlite:///{tmp_path / 'test.db'}")
        await database.start()
        stack.push_async_callback(database.close)
        builder = ModelBuilder(clock)
        stack.push_async_callback(builder.aclose)
        fallback = LLMProviderFallback(providers or (A, B, UNSET), shared, clock)
        audit = Audit(database, clock)
        totals = UsageTotals(database, UsageLedger(database, clock), clock)
        undoable = UndoStore(redis, "test")
        admin = ProviderAdmin(fallback, builder, audit, totals, clock, undoable)
        commands = ProviderCommands(admin, clock)
        yield ProviderHarness(commands, fallback, shared, audit, database, clock, admin, undoable)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[ProviderHarness]:
    """Providers a, b, and c, which is not configured; it is 08:00 UTC."""
    async with provider_harness(tmp_path) as harness:
        assert harness.clock.now().hour == 8
        yield harness


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """The server of a provider."""
    async with LLMServer() as started:
        yield started


async def test_forces_of_one_moment_are_undone_each_by_itself(three: ProviderHarness) -> None:
    async def restore(act: Act) -> bool:
        assert isinstance(act, RoutingAct)
        return await three.admin.undo(act, ADMIN)

    acts = await asyncio.gather(three.admin.force(A, ADMIN), three.admin.force(B, ADMIN))
    first, second = [str(act.record.undo_id) for act in acts]
    results = [await three.undoable.undo(act_id, restore) for act_id in (first, second, first)]
    assert results == [UndoResult.CHANGED, UndoResult.DONE, UndoResult.DONE]


class TestTable:
    """`/provider` without arguments."""

    async def test_table_shows_what_models_refuse(self, three: ProviderHarness) -> None:
        """As long as it is remembered, with the windows that servers named."""
        recorder = three.fallback.recorder
        tools = frozenset({Capability.TOOLS, Capability.TOOL_CHOICE, Capability.IMAGES})
        recorder.capabilities_refused(Candidate(A, "m"), tools, is_guess=False)
        recorder.length_learned(Candidate(A, "m"), 3_000, 4_096)
        recorder.length_learned(Candidate(A, "n"), 3_000, None)
        assert three.block("a")[2:] == [
            "m works without a choice of the tool, images and tools; its window is 4,096 tokens",
            "n takes at most about 3,000 tokens",
        ]
        assert three.block("b")[2:] == []
        assert "m works without a choice of the tool, images and tools" in await three.run("")
        three.clock.shift(24 * 3600 + 1)
        assert three.block("a")[2:] == []

    async def test_table_shows_models_that_rest(self, three: ProviderHarness) -> None:
        gone = Outcome(Fault.MODEL_GONE, "HTTP 404 (model_not_found)", 1800)
        three.fallback.recorder.model_failed(Candidate(A, "m"), gone, "chat", is_listed=True)
        assert three.block("a")[-1] == "m rests until 08:30 UTC (30m left): HTTP 404 (model_not_found)"

    async def test_table_shows_instants_in_the_time_zone(self, three: ProviderHarness) -> None:
        await three.fallback.force_provider("a", 15 * 3600 + 600)
        status, tokyo = three.fallback.get_provider_status(), ZoneInfo("Asia/Tokyo")
        table = provider_table(status, three.clock.time(), {}, tokyo)
        assert "1. a: forced until 2027-01-16 08:10 JST (15h 10m left)" in table
        assert "today (JST) covers all replicas" in table
        await three.fallback.force_provider("a", 600)
        berlin = provider_table(three.fallback.get_provider_status(), three.clock.time(), {}, ZoneInfo("Europe/Berlin"))
        assert "1. a: forced until 09:10 CET (10m left)" in berlin

    async def test_table_shows_each_state_with_its_details(self, three: ProviderHarness) -> None:
        """The states come from the fallback service itself."""
        assert three.block("a") == ["1. a: healthy", "models: m, n"]
        assert three.block("c") == ["3. c: not configured: C_API_KEY is not set", "models: m, n"]

        await three.fallback.report_provider_failure("a", TimeoutError("no output within 12 s"), "test")
        assert three.block("a") == [
            "1. a: cooling down until 08:05 UTC (5m left): no output within 12 s",
            "models: m, n",
            "1 request, 1 failed",
        ]
        await three.fallback.report_provider_success("b", "test")
        assert three.block("b")[0] == "2. b: preferred until 08:30 UTC (30m left)"

        three.clock.shift(400)
        assert three.block("a")[0] == "1. a: half-open, to be probed next: no output within 12 s"
        attempts = await three.fallback.begin(RequestSpec("test"))
        await anext(attempts)
        assert three.block("a")[0] == "1. a: being probed: no output within 12 s"
        attempts.close()

        await three.run("force a 90s")
        assert three.block("a")[0] == "1. a: forced until 08:09 UTC (1m 30s left)"
        assert "last error: no output within 12 s" in three.block("a")

    async def test_table_shows_the_date_of_another_day(self, three: ProviderHarness) -> None:
        await three.run("force a 20h")
        assert three.block("a")[0] == "1. a: forced until 2027-01-16 04:00 UTC (20h left)"

    @pytest.mark.parametrize(
        ("latencies", "text"),
        [
            ((), None),
            ((0.4,), "first output: 0.40 s (once)"),
            ((0.2, 0.4), "first output: median 0.30 s, 95% within 0.39 s"),  # never beyond the slowest
            (tuple(n / 100 for n in range(1, 101)), "first output: median 0.51 s, 95% within 0.95 s"),
        ],
    )
    async def test_table_shows_median_and_95th_percentile_latency(
        self, three: ProviderHarness, latencies: Sequence[float], text: str | None
    ) -> None:
        for latency in latencies:
            three.fallback.recorder.succeeded(A, "test", began=three.clock.time(), prefer=False, first_output_s=latency)
        shown = [line for line in three.block("a") if line.startswith("first output")]
        assert shown == ([text] if text else [])
        assert (f"{len(latencies)} requests, 0 failed" in three.block("a")) is (len(latencies) > 1)

    async def test_table_and_acts_report_unavailable_redis(self, tmp_path: Path, three: ProviderHarness) -> None:
        assert REDIS_UNAVAILABLE not in three.table()
        async with provider_harness(tmp_path / "other", connected=False) as alone:
            assert alone.table().endswith(REDIS_UNAVAILABLE)
            assert (await alone.run("force b")).endswith(REDIS_UNAVAILABLE)
            assert await alone.candidates() == ["b", "a"]


class TestCommand:
    """The actions of `/provider`."""

    async def test_force_asks_a_provider_first_until_it_expires(self, three: ProviderHarness) -> None:
        text = await three.run("force b 10m")
        assert text == "b is asked first until 08:10 UTC (10m left). If it fails, the others follow."
        assert await three.candidates() == ["b", "a"]
        three.clock.shift(601)
        assert await three.candidates() == ["a", "b"]

    @pytest.mark.parametrize(
        ("arguments", "seconds"),
        [
            ("force b", 1800),
            ("force b 5", 300),
            ("FORCE B 2h", 7200),  # ids and verbs in any case
            ("force b 10 m", 600),  # a space between number and unit
            ("  force   b   90s ", 90),
        ],
    )
    async def test_force_accepts_spellings_of_id_and_duration(
        self, three: ProviderHarness, arguments: str, seconds: float
    ) -> None:
        await three.run(arguments)
        assert three.status("b").until == three.clock.time() + seconds

    async def test_clear_ends_force_and_preference_and_keeps_cooldowns(self, three: ProviderHarness) -> None:
        await three.run("cooldown a")
        await three.run("force a")
        await three.fallback.report_provider_success("b", "test")
        assert "Cleared" in await three.run("clear")
        status = three.fallback.get_provider_status()
        assert (status.forced, status.preferred) == (None, None)
        assert three.status("a").state is ProviderState.COOLING

    async def test_cooldown_puts_a_provider_last_until_reset(self, three: ProviderHarness) -> None:
        assert "until 08:05 UTC (5m left)" in await three.run("cooldown a")
        assert await three.candidates() == ["b", "a"]
        assert three.block("a")[0] == "1. a: cooling down until 08:05 UTC (5m left): set by an admin"
        assert "a is reset" in await three.run("reset a")
        assert await three.candidates() == ["a", "b"]

    async def test_cooldown_keeps_a_later_end_and_reports_it(self, three: ProviderHarness) -> None:
        await three.run("cooldown a 1h")
        assert "until 09:00 UTC (1h left)" in await three.run("cooldown a 1m")

    async def test_cooldown_of_a_forced_provider_reports_the_force(self, three: ProviderHarness) -> None:
        await three.run("force a 10m")
        assert "it is forced until 08:10 UTC" in await three.run("cooldown a")
        assert await three.candidates() == ["a", "b"]

    @pytest.mark.parametrize(
        "arguments",
        [
            "nonsense",
            "help",
            "force",
            "force d",  # not listed
            "test",
            "test d",
            "reset",
            "cooldown d 5m",
            "clear now",
            "test a b",
            "force a soon",
            "cooldown a 0",
            "force a 200h",
        ],
    )
    async def test_invalid_arguments_return_the_usage_with_the_known_ids(
        self, three: ProviderHarness, arguments: str
    ) -> None:
        before = three.shared.routing
        text = await three.run(arguments)
        assert "Usage: /provider [force <id> [10m] | clear | test <id> | cooldown <id> [5m] | reset <id>]" in text
        assert "a plain number is minutes" in text
        assert text.endswith("Providers: a, b, c.")
        assert three.shared.routing is before
        assert await three.audited() == []

    @pytest.mark.parametrize("verb", ["force", "test", "cooldown", "reset"])
    async def test_acts_reject_a_provider_that_is_not_configured(self, three: ProviderHarness, verb: str) -> None:
        before = three.shared.routing
        assert await three.run(f"{verb} c") == "c is not configured: C_API_KEY is not set."
        assert three.shared.routing is before
        assert await three.audited() == []


class TestProviderTest:
    """`/provider test`: a real request to that provider."""

    async def test_test_act_reports_key_model_and_latency(self, tmp_path: Path, server: LLMServer) -> None:
        """Sent to the provider's default model only."""
        async with provider_harness(tmp_path, A, provider_at(server, id="b", models=("first", "second"))) as harness:
            text = await harness.run("test b")
        assert text == "b works: first answered in 0 ms: stream, tools, system message; the key is accepted."
        (request,) = server.requests
        assert request.model == "first"
        assert request.json["max_tokens"] == MAX_TOKENS
        assert request.streamed
        assert request.json["tools"]

    async def test_test_act_without_a_key_reports_no_key(self, tmp_path: Path, server: LLMServer) -> None:
        async with provider_harness(tmp_path, provider_at(server, id="a", api_key=None)) as harness:
            assert (await harness.run("test a")).endswith("no key is set.")

    @pytest.mark.parametrize(
        ("behaviour", "reason"),
        [
            (llm.status(401), "HTTP 401"),  # the key
            (llm.status(503), "HTTP 503"),  # no retry
            (llm.empty_answer(), "empty answer"),
            (llm.hang(), "no answer within 1 s"),
            (llm.html_page(), "unreadable answer"),
        ],
    )
    async def test_failed_test_act_reports_its_reason_and_changes_no_state(
        self, tmp_path: Path, server: LLMServer, behaviour: llm.Behaviour, reason: str
    ) -> None:
        """Changes neither routing nor counts. A possible refusal of a feature is retried without the feature."""
        server.default = behaviour
        async with provider_harness(tmp_path, provider_at(server, id="a", first_token_timeout_s=1), B) as harness:
            before = harness.shared.routing, harness.status("a")
            text = await harness.run("test a")
            assert text.startswith("a does not work: m: ")
            assert reason in text
            assert (harness.shared.routing, harness.status("a")) == before
            ((action, target, detail),) = await harness.audited()
        assert (action, target) == ("provider.test", "a")
        assert detail is not None
        assert reason in detail
        is_final = reason.startswith("HTTP") or "within" in reason
        assert len(server.requests) == (1 if is_final else 8)

    async def test_test_act_reports_refused_features_with_the_servers_words(
        self, tmp_path: Path, server: LLMServer
    ) -> None:
        """Masks the key in every field."""
        body = {"error": {"message": f"tools are off for {KEY}", "code": KEY}}
        server.script(llm.status(400, body), llm.answer("OK"))
        async with provider_harness(tmp_path, provider_at(server, id="a")) as harness:
            first, second = (await harness.run("test a")).splitlines()
        assert first == "a works: m answered in 0 ms: stream, no tools, system message; the key is accepted."
        assert second == "m is asked without tools: HTTP 400 (***): tools are off for ***"

    async def test_test_act_accepts_thinking_cut_by_the_limit(self, tmp_path: Path, server: LLMServer) -> None:
        server.default = llm.Answer(thinking="Hm.", finish="length")
        async with provider_harness(tmp_path, provider_at(server, id="a")) as harness:
            assert (await harness.run("test a")).startswith("a works")

    async def test_test_act_ignores_force_and_cooldown(self, tmp_path: Path, server: LLMServer) -> None:
        """The cooldown stays, and the result says how to end it."""
        async with provider_harness(tmp_path, provider_at(server, id="a"), B) as harness:
            await harness.run("force b")
            await harness.run("cooldown a")
            text = await harness.run("test a")
            assert "a works" in text
            assert "still cools down until 08:05 UTC (5m left); /provider reset a ends that" in text
            assert harness.status("a").state is ProviderState.COOLING
            assert harness.status("b").requests == 0


class TestAudit:
    """The audit log of acts."""

    async def test_each_act_is_audited(self, tmp_path: Path, server: LLMServer) -> None:
        async with provider_harness(tmp_path, provider_at(server, id="a"), B) as harness:
            for arguments in ("force a 90s", "cooldown b", "reset b", "test a", "clear", ""):
                await harness.run(arguments)
            assert await harness.audited() == [
                ("provider.force", "a", "for 1m 30s; before: forced none, preferred none"),
                ("provider.cooldown", "b", "for 5m; before: healthy"),
                ("provider.reset", "b", "before: cooling down, set by an admin"),
                ("provider.test", "a", "ok in 0 ms"),
                ("provider.clear", None, "before: forced a, preferred none"),
            ]

    async def test_act_without_audit_happens_with_a_warning(self, three: ProviderHarness) -> None:
        """Operators can act during an outage of the database."""
        async with three.database.session() as session:
            await session.execute(sql("DROP TABLE audit"))
        with capture_logs() as logs:
            text = await three.run("force b")
        assert text.splitlines()[1:] == [NOT_AUDITED]
        assert await three.candidates() == ["b", "a"]
        errors = [entry for entry in logs if entry["log_level"] == "error"]
        assert [(entry["event"], entry["action"]) for entry in errors] == [("audit.not_recorded", "provider.force")]


async def test_provider_speaks_the_language_of_the_operator(three: ProviderHarness) -> None:
    run = three.commands.run
    assert "исправен" in await run("", ADMIN, "ru")
    assert "осталось 30 мин)" in await run("force b", ADMIN, "ru")
    assert (await run("dance", ADMIN, "ru")).startswith("Команда: /provider")
    assert "исправен" not in await run("", ADMIN, "en-GB")
