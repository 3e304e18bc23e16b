"""What admins do with the providers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import text as sql
from structlog.testing import capture_logs

from bot.operators.provider import NOT_AUDITED, ProviderCommands
from bot.operators.provider_table import ALONE, provider_table
from core.config.providers import ProviderKind, ProviderSettings
from core.db.database import Database
from core.durations import format_duration, parse_duration
from core.redis.client import open_redis
from services.admin.audit import Audit, AuditEntry
from services.admin.providers import TEST_TOKENS, ProviderAdmin
from services.llm.providers.builder import ModelBuilder
from services.llm.request import RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.shared_state import SharedRouting
from services.llm.routing.status import ProviderState, ProviderStatus
from services.usage.ledger import UsageLedger
from services.usage.totals import UsageTotals
from tests.support.clock import ManualClock
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import LLMServer

ADMIN = 42


def provider(name: str, **changes: object) -> ProviderSettings:
    """A provider that nobody asks, unless changed."""
    settings = ProviderSettings(
        id=name, kind=ProviderKind.OPENAI_COMPATIBLE, models=("m", "n"), base_url="http://127.0.0.1:1/v1"
    )
    return replace(settings, **changes)


A, B = provider("a"), provider("b")
UNSET = provider("c", missing="C_API_KEY is not set")


@dataclass(frozen=True, slots=True)
class ProviderHarness:
    """The commands and the services that they act on."""

    commands: ProviderCommands
    fallback: LLMProviderFallback
    shared: SharedRouting
    audit: Audit
    database: Database
    clock: ManualClock

    async def says(self, arguments: str) -> str:
        return await self.commands.run(arguments, ADMIN)

    def status(self, name: str) -> ProviderStatus:
        return next(each for each in self.fallback.get_provider_status().providers if each.provider == name)

    def table(self) -> str:
        return provider_table(self.fallback.get_provider_status(), self.clock.time())

    def block(self, name: str) -> list[str]:
        """The lines of the table about one provider."""
        blocks = self.table().split("\n\n")
        found = next(block for block in blocks if block.partition(". ")[2].startswith(f"{name}:"))
        return [line.strip() for line in found.splitlines()]

    async def candidates(self) -> list[str]:
        """Whom the next request would ask, in this order."""
        attempts = await self.fallback.begin(RequestSpec("test"))
        attempts.close()
        return [candidate.provider.id for candidate in attempts.candidates]

    async def audited(self) -> list[tuple[str, str | None, str | None]]:
        """Action, target and detail of each entry, oldest first; all are the admin's."""
        entries: list[AuditEntry] = await self.audit.recent()
        assert all(entry.actor_id == ADMIN for entry in entries)
        return [(entry.action, entry.target, entry.detail) for entry in reversed(entries)]


@asynccontextmanager
async def office(
    tmp_path: Path, *providers: ProviderSettings, connected: bool = True
) -> AsyncIterator[ProviderHarness]:
    """A desk over a database and the embedded store."""
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
        accounts = UsageTotals(database, UsageLedger(database, clock), clock)
        commands = ProviderCommands(ProviderAdmin(fallback, builder, audit, accounts, clock), clock)
        yield ProviderHarness(commands, fallback, shared, audit, database, clock)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[ProviderHarness]:
    """A desk over a, b, and c which is not configured; it is 08:00 UTC."""
    async with office(tmp_path) as made:
        assert made.clock.now().hour == 8
        yield made


@pytest.fixture
async def server() -> AsyncIterator[LLMServer]:
    """A provider's server."""
    async with LLMServer() as started:
        yield started


class TestDurations:
    """Lengths of time as admins write and read them."""

    @pytest.mark.parametrize(
        ("written", "seconds"),
        [
            ("90s", 90),
            ("10m", 600),
            ("2h", 7200),
            ("5", 300),  # a plain number is minutes
            ("10M", 600),
            (" 1s ", 1),
            ("168h", 604_800),  # a week, the longest
            ("169h", None),
            ("0", None),
            ("", None),
            ("m", None),
            ("-5m", None),
            ("1.5h", None),
            ("1d", None),
            ("10 m", None),  # the command joins words before it asks
            ("٣m", None),  # digits of another script
            ("9999999999999999s", None),
        ],
    )
    def test_parsing(self, written: str, seconds: float | None) -> None:
        assert parse_duration(written) == seconds

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [
            (0.2, "1s"),  # rounded up: it is not over yet
            (45, "45s"),
            (59.5, "1m"),
            (260, "4m 20s"),
            (600, "10m"),
            (3599.9, "1h"),
            (7500, "2h 5m"),
            (7201, "2h 1m"),
            (-3, "0s"),
        ],
    )
    def test_saying(self, seconds: float, said: str) -> None:
        assert format_duration(seconds) == said


class TestTable:
    """`/provider` without anything after it."""

    async def test_each_state_is_told_with_what_belongs_to_it(self, three: ProviderHarness) -> None:
        """By the states that the service itself brings about, one after the other."""
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
        assert three.block("a")[0] == "1. a: being probed: no output within 12 s"
        attempts.close()

        await three.says("force a 90s")
        assert three.block("a")[0] == "1. a: forced until 08:09 UTC (1m 30s left)"
        assert "last error: no output within 12 s" in three.block("a")

    async def test_an_end_on_another_day_has_its_date(self, three: ProviderHarness) -> None:
        await three.says("force a 20h")
        assert three.block("a")[0] == "1. a: forced until 2027-01-16 04:00 UTC (20h left)"

    @pytest.mark.parametrize(
        ("latencies", "said"),
        [
            ((), None),
            ((0.4,), "first output: 0.40 s (once)"),
            ((0.2, 0.4), "first output: median 0.30 s, 95% within 0.39 s"),  # never beyond the slowest
            (tuple(n / 100 for n in range(1, 101)), "first output: median 0.51 s, 95% within 0.95 s"),
        ],
    )
    async def test_latency_is_the_median_and_the_95th_percentile(
        self, three: ProviderHarness, latencies: Sequence[float], said: str | None
    ) -> None:
        for latency in latencies:
            three.fallback.succeeded("a", "test", began=three.clock.time(), prefer=False, first_output_s=latency)
        shown = [line for line in three.block("a") if line.startswith("first output")]
        assert shown == ([said] if said else [])
        assert (f"{len(latencies)} requests, 0 failed" in three.block("a")) is (len(latencies) > 1)

    async def test_a_replica_that_is_alone_says_so(self, tmp_path: Path, three: ProviderHarness) -> None:
        assert ALONE not in three.table()
        async with office(tmp_path / "other", connected=False) as alone:
            assert alone.table().endswith(ALONE)
            assert (await alone.says("force b")).endswith(ALONE)
            assert await alone.candidates() == ["b", "a"]


class TestCommand:
    """What follows `/provider`."""

    async def test_force_asks_a_provider_first_while_it_lasts(self, three: ProviderHarness) -> None:
        said = await three.says("force b 10m")
        assert said == "b is asked first until 08:10 UTC (10m left). If it fails, the others follow."
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
    async def test_how_a_force_may_be_written(self, three: ProviderHarness, arguments: str, seconds: float) -> None:
        await three.says(arguments)
        assert three.status("b").until == three.clock.time() + seconds

    async def test_clear_ends_force_and_preference_but_no_cooldown(self, three: ProviderHarness) -> None:
        await three.says("cooldown a")
        await three.says("force a")
        await three.fallback.report_provider_success("b", "test")
        assert "Cleared" in await three.says("clear")
        status = three.fallback.get_provider_status()
        assert (status.forced, status.preferred) == (None, None)
        assert three.status("a").state is ProviderState.COOLING

    async def test_cooldown_puts_a_provider_last_and_reset_ends_that(self, three: ProviderHarness) -> None:
        assert "until 08:05 UTC (5m left)" in await three.says("cooldown a")
        assert await three.candidates() == ["b", "a"]
        assert three.block("a")[0] == "1. a: cooling down until 08:05 UTC (5m left): set by an admin"
        assert "a is reset" in await three.says("reset a")
        assert await three.candidates() == ["a", "b"]

    async def test_a_shorter_cooldown_does_not_shorten_and_the_answer_says_until_when(
        self, three: ProviderHarness
    ) -> None:
        await three.says("cooldown a 1h")
        assert "until 09:00 UTC (1h left)" in await three.says("cooldown a 1m")

    async def test_a_forced_provider_that_is_cooled_stays_first_and_the_answer_says_so(
        self, three: ProviderHarness
    ) -> None:
        await three.says("force a 10m")
        assert "it is forced until 08:10 UTC" in await three.says("cooldown a")
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
    async def test_what_is_not_understood_is_answered_with_the_usage_and_the_known_ids(
        self, three: ProviderHarness, arguments: str
    ) -> None:
        before = three.shared.routing
        said = await three.says(arguments)
        assert "Usage: /provider [force <id> [10m] | clear | test <id> | cooldown <id> [5m] | reset <id>]" in said
        assert "a plain number is minutes" in said
        assert said.endswith("Providers: a, b, c.")
        assert three.shared.routing is before
        assert await three.audited() == []

    @pytest.mark.parametrize("verb", ["force", "test", "cooldown", "reset"])
    async def test_nothing_is_done_with_a_provider_that_is_not_configured(
        self, three: ProviderHarness, verb: str
    ) -> None:
        before = three.shared.routing
        assert await three.says(f"{verb} c") == "c is not configured: C_API_KEY is not set."
        assert three.shared.routing is before
        assert await three.audited() == []


class TestProbe:
    """`/provider test`: a real request to that very provider."""

    async def test_one_tiny_request_tells_key_model_and_latency(self, tmp_path: Path, server: LLMServer) -> None:
        """To the provider's default model, with its key; the others hear nothing of it."""
        async with office(tmp_path, A, provider_at(server, id="b", models=("first", "second"))) as desk:
            said = await desk.says("test b")
        assert said == "b works: first answered in 0 ms, the key is accepted."
        (request,) = server.requests
        assert request.model == "first"
        assert request.json["max_tokens"] == TEST_TOKENS
        assert not request.streamed

    async def test_without_a_key_none_is_praised(self, tmp_path: Path, server: LLMServer) -> None:
        async with office(tmp_path, provider_at(server, id="a", api_key=None)) as desk:
            assert (await desk.says("test a")).endswith("no key is set.")

    @pytest.mark.parametrize(
        ("behaviour", "reason"),
        [
            (llm.status(401), "HTTP 401"),  # the key
            (llm.status(503), "HTTP 503"),  # not even a second try: what is wrong now is what was asked
            (llm.empty_answer(), "empty answer"),
            (llm.hang(), "no answer within 0.1 s"),
            (llm.html_page(), "unreadable answer"),
        ],
    )
    async def test_a_failure_is_told_with_its_reason_and_changes_nothing(
        self, tmp_path: Path, server: LLMServer, behaviour: llm.Behaviour, reason: str
    ) -> None:
        """Neither state nor figures: whoever tests a provider wants to know, not to move everybody."""
        server.default = behaviour
        async with office(tmp_path, provider_at(server, id="a", first_token_timeout_s=0.1), B) as desk:
            before = desk.shared.routing, desk.status("a")
            said = await desk.says("test a")
            assert said.startswith("a does not work: m: ")
            assert reason in said
            assert (desk.shared.routing, desk.status("a")) == before
            ((action, target, detail),) = await desk.audited()
        assert (action, target) == ("provider.test", "a")
        assert detail is not None
        assert reason in detail
        assert len(server.requests) == 1

    async def test_a_model_that_spent_the_tokens_on_thinking_works(self, tmp_path: Path, server: LLMServer) -> None:
        server.default = llm.Answer(thinking="Hm.", finish="length")
        async with office(tmp_path, provider_at(server, id="a")) as desk:
            assert (await desk.says("test a")).startswith("a works")

    async def test_neither_force_nor_cooldown_leads_it_elsewhere(self, tmp_path: Path, server: LLMServer) -> None:
        """A cooldown stays, and the answer says how to end it."""
        async with office(tmp_path, provider_at(server, id="a"), B) as desk:
            await desk.says("force b")
            await desk.says("cooldown a")
            said = await desk.says("test a")
            assert "a works" in said
            assert "still cools down until 08:05 UTC (5m left); /provider reset a ends that" in said
            assert desk.status("a").state is ProviderState.COOLING
            assert desk.status("b").requests == 0


class TestAudit:
    """Every act is noted."""

    async def test_each_act_leaves_an_entry(self, tmp_path: Path, server: LLMServer) -> None:
        async with office(tmp_path, provider_at(server, id="a"), B) as desk:
            for arguments in ("force a 90s", "cooldown b", "reset b", "test a", "clear", ""):
                await desk.says(arguments)
            assert await desk.audited() == [
                ("provider.force", "a", "for 1m 30s"),
                ("provider.cooldown", "b", "for 5m"),
                ("provider.reset", "b", None),
                ("provider.test", "a", "ok in 0 ms"),
                ("provider.clear", None, None),
            ]

    async def test_an_act_that_cannot_be_noted_happens_and_says_so(self, three: ProviderHarness) -> None:
        """In an outage of the database an admin must be able to act all the same."""
        async with three.database.session() as session:
            await session.execute(sql("DROP TABLE audit"))
        with capture_logs() as logs:
            said = await three.says("force b")
        assert said.splitlines()[1:] == [NOT_AUDITED]
        assert await three.candidates() == ["b", "a"]
        errors = [entry for entry in logs if entry["log_level"] == "error"]
        assert [(entry["event"], entry["action"]) for entry in errors] == [("audit.not_recorded", "provider.force")]
