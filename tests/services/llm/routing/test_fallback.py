"""The fallback service as its users meet it: over HTTP, with the embedded store and a clock that the tests move."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx2
import pytest
from pydantic_ai import Agent
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import BinaryContent, ImageUrl, ModelMessage, ModelRequest, PartDeltaEvent, UserPromptPart
from pydantic_ai.models import StreamedResponse
from pydantic_ai.settings import ModelSettings

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.errors import AllProvidersFailed, AnswerInterrupted, ContentRefused, RequestRejected, UnknownProvider
from core.redis.client import open_redis
from services.llm.models.provenance import last_provenance
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.events import LeaderChanged, Misconfigured
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.recorder import RoutingLimits, RoutingTiming
from services.llm.routing.rules import Change
from services.llm.routing.shared_state import SharedRouting
from services.llm.routing.status import ProviderState
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import HELLO, LLMHarness, answered_by, bench, eventually, provider, said

NAMES = ("first", "second", "third")


@dataclass(slots=True)
class Stage:
    """Three providers, each with its server that says who it is."""

    servers: Sequence[LLMServer]
    replica: LLMHarness
    events: list[LeaderChanged | Misconfigured]

    @property
    def first(self) -> LLMServer:
        return self.servers[0]

    @property
    def second(self) -> LLMServer:
        return self.servers[1]

    @property
    def third(self) -> LLMServer:
        return self.servers[2]

    @property
    def fallback(self) -> LLMProviderFallback:
        return self.replica.fallback

    async def asked(self, *, streamed: bool = True, choice: ModelChoice | str | None = None) -> str:
        """Who answers a request now."""
        return answered_by(await self.replica.ask(streamed=streamed, choice=choice))

    def counts(self) -> list[int]:
        """How many requests each server has had."""
        return [len(server.requests) for server in self.servers]

    async def first_fails(self) -> None:
        """The first provider cools down for 300 s, and is well again afterwards."""
        self.first.script(llm.status(529))
        assert await self.asked() == "second"


@asynccontextmanager
async def staged(rules: RoutingLimits | None = None, **changes: object) -> AsyncIterator[Stage]:
    """A stage whose providers differ from the ordinary ones in `changes`."""
    async with LLMServer() as first, LLMServer() as second, LLMServer() as third, open_redis(None) as redis:
        servers = (first, second, third)
        for name, server in zip(NAMES, servers, strict=True):
            server.default = llm.answer(f"from the {name}")
        providers = [provider(name, server.url, **changes) for name, server in zip(NAMES, servers, strict=True)]
        async with bench(redis, providers, rules=rules) as replica:
            stage = Stage(servers, replica, [])
            replica.fallback.listen(stage.events.append)
            yield stage


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    async with staged() as stage:
        yield stage


# Choosing


async def test_the_dict_s_order_is_the_priority(stage: Stage) -> None:
    """And each provider is asked for its first model."""
    assert await stage.asked() == "first"
    assert stage.first.requests[0].model == "first-model"
    assert stage.counts() == [1, 0, 0]


async def test_a_forced_provider_comes_first_until_it_runs_out(stage: Stage) -> None:
    await stage.fallback.force_provider("third", 600)

    assert await stage.asked() == "third"
    stage.replica.clock.shift(599)
    assert await stage.asked() == "third"
    stage.replica.clock.shift(1)
    assert await stage.asked() == "first"


async def test_a_force_lasts_half_an_hour_unless_said_otherwise(stage: Stage) -> None:
    await stage.fallback.force_provider("third")

    assert stage.fallback.get_provider_status().providers[2].until == stage.replica.clock.time() + 1800


async def test_a_forced_provider_comes_first_even_in_cooldown(stage: Stage) -> None:
    await stage.first_fails()
    await stage.fallback.force_provider("first", 600)

    assert await stage.asked() == "first"


async def test_when_the_forced_one_fails_the_others_follow(stage: Stage) -> None:
    """The preferred first, then by priority; and the force stands."""
    await stage.first_fails()
    await stage.fallback.force_provider("third", 600)
    stage.third.default = llm.status(529)

    assert await stage.asked() == "second"
    assert await stage.asked() == "second"
    assert stage.counts() == [1, 3, 2]


async def test_an_answer_by_force_is_no_preference(stage: Stage) -> None:
    """Once the force is over the priority order is in force."""
    await stage.fallback.force_provider("third", 600)
    await stage.asked()

    assert stage.replica.preferred is None
    await stage.fallback.clear_cache()
    assert await stage.asked() == "first"


async def test_the_user_s_choice_comes_before_the_preferred(stage: Stage) -> None:
    """With the model that was picked, or the provider's default; the others are asked for theirs."""
    await stage.first_fails()
    assert stage.replica.preferred == "second"

    assert await stage.asked(choice=ModelChoice("third", "third-large")) == "third"
    assert await stage.asked(choice="third") == "third"
    assert [request.model for request in stage.third.requests] == ["third-large", "third-model"]
    assert stage.replica.preferred == "second"


async def test_the_admin_s_force_comes_before_the_user_s_choice(stage: Stage) -> None:
    await stage.fallback.force_provider("second", 600)

    assert await stage.asked(choice=ModelChoice("third", "third-large")) == "second"
    assert stage.second.requests[0].model == "second-model"


async def test_when_the_chosen_one_fails_the_others_follow(stage: Stage) -> None:
    """A choice is tried even in cooldown."""
    stage.third.default = llm.status(529)

    assert await stage.asked(choice="third") == "first"
    assert await stage.asked(choice="third") == "first"
    assert stage.counts() == [2, 0, 2]


async def test_somebody_unknown_can_be_neither_forced_nor_chosen(stage: Stage) -> None:
    with pytest.raises(UnknownProvider):
        await stage.fallback.force_provider("fourth")
    with pytest.raises(UnknownProvider):
        stage.replica.factory.create_llm_model_with_fallback("test", force_provider="fourth")


@pytest.mark.parametrize(("hops", "asked"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (9, [1, 1, 1])])
async def test_no_more_than_max_hops_are_tried(hops: int, asked: list[int]) -> None:
    async with staged(RoutingLimits(max_hops=hops)) as stage:
        for server in stage.servers:
            server.default = llm.status(529)

        with pytest.raises(AllProvidersFailed) as failure:
            await stage.asked()

        assert stage.counts() == asked
        assert len(failure.value.attempts) == sum(asked)


@pytest.mark.parametrize("hops", [1, 2])
async def test_a_probe_that_fails_is_one_of_the_hops(hops: int) -> None:
    """But one that may be tried alone has another one behind it: whoever probes for all is to be answered."""
    async with staged(RoutingLimits(max_hops=hops)) as stage:
        await stage.fallback.report_provider_failure("first", TimeoutError("silent"), "test")
        stage.replica.clock.shift(300)
        for server in stage.servers:
            server.default = llm.status(529)

        with pytest.raises(AllProvidersFailed) as failure:
            await stage.asked()

        assert [attempt.provider for attempt in failure.value.attempts] == ["first", "second"]


async def test_the_demo_is_no_hop() -> None:
    """A newcomer who has configured many that do not answer reads what to do all the same."""
    async with LLMServer() as down, open_redis(None) as redis:
        down.default = llm.status(529)
        demo = ProviderSettings(id="demo", kind=ProviderKind.DEMO, models=("demo",), remote=False)
        providers = [*(provider(name, down.url) for name in ("a", "b", "c", "d")), demo]
        async with bench(redis, providers, rules=RoutingLimits(max_hops=2)) as replica:
            response = await replica.ask(streamed=False)

            assert answered_by(response) == "demo"
            assert len(down.requests) == 2


async def test_when_all_cool_down_the_one_that_is_free_first_is_tried(stage: Stage) -> None:
    """No request is refused while a provider is configured."""
    for server, seconds in zip(stage.servers, (300, 100, 200), strict=True):
        server.script(llm.status(429, headers={"retry-after": str(seconds)}))
    with pytest.raises(AllProvidersFailed):
        await stage.asked()

    assert await stage.asked() == "second"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_the_only_provider_cools_down_like_any_other(stage: Stage, *, streamed: bool) -> None:
    """It is asked all the same, since nobody else is there, and leads again once it has answered."""
    async with bench(open_redis(None), stage.fallback.providers[:1]) as replica:
        stage.first.script(llm.status(529))
        with pytest.raises(AllProvidersFailed):
            await replica.ask(streamed=streamed)
        assert replica.cooling() == {"first": 300}

        assert answered_by(await replica.ask(streamed=streamed)) == "first"
        assert replica.cooling() == {}
        assert replica.preferred == "first"


async def test_the_only_provider_is_tried_again_after_a_hiccup(stage: Stage) -> None:
    """Though another request has just tried that in vain: there is nobody else to go to."""
    async with bench(open_redis(None), stage.fallback.providers[:1]) as replica:
        held = asyncio.Event()
        stage.first.script(llm.gate(held, then=llm.status(500)), llm.status(500), llm.status(500))
        stuck = asyncio.create_task(replica.ask(streamed=True))
        await stage.first.arrival(1)
        with pytest.raises(AllProvidersFailed):
            await replica.ask(streamed=True)
        held.set()

        assert answered_by(await stuck) == "first"


async def test_who_was_found_failing_meanwhile_is_not_asked_before_who_is_well(stage: Stage) -> None:
    """The order is that of the moment at which a candidate is asked, not of the one at which the request began."""
    held = asyncio.Event()
    stage.first.script(llm.gate(held, then=llm.status(529)))
    stuck = asyncio.create_task(stage.asked())
    await stage.first.arrival(1)
    stage.second.script(llm.status(529))
    assert await stage.asked(choice="second") == "first"

    held.set()

    assert await stuck == "third"
    assert stage.counts()[1] == 1


async def test_nor_is_who_has_not_proven_itself_since(stage: Stage) -> None:
    """Its cooldown has even ended by then: it is found out by one request whether it is back, and not by this one."""
    held = asyncio.Event()
    stage.first.script(llm.gate(held, then=llm.status(529)))
    stuck = asyncio.create_task(stage.asked())
    await stage.first.arrival(1)
    stage.second.script(llm.status(429, headers={"retry-after": "1"}))
    assert await stage.asked(choice="second") == "first"
    stage.replica.clock.shift(2)

    held.set()

    assert await stuck == "third"


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_a_hiccup_of_who_was_found_failing_meanwhile_is_none(stage: Stage, *, streamed: bool) -> None:
    """Another request has already tried once more, in vain."""
    held = asyncio.Event()
    stage.first.script(llm.gate(held, then=llm.status(500)), llm.status(500), llm.status(500))
    stuck = asyncio.create_task(stage.asked(streamed=streamed))
    await stage.first.arrival(1)
    assert await stage.asked(streamed=streamed) == "second"

    held.set()

    assert await stuck == "second"
    assert stage.counts() == [3, 2, 0]


async def test_a_picked_one_in_cooldown_is_tried_once_more_after_a_hiccup(stage: Stage) -> None:
    """Its cooldown was known when it was asked."""
    await stage.first_fails()
    stage.first.script(llm.status(500))

    assert await stage.asked(choice="first") == "first"


# Remembering


async def test_the_preference_has_a_fixed_life(stage: Stage) -> None:
    """Later successes do not prolong it: half an hour after the failover the priority order is back in force."""
    await stage.first_fails()
    began = stage.replica.clock.time()
    stage.first.default = llm.status(529)
    for _ in range(5):
        stage.replica.clock.shift(301)
        await stage.asked()
    assert stage.counts()[0] == 6
    assert stage.replica.preferred == "second"

    await stage.fallback.control.reset("first")
    stage.replica.clock.shift(began + 1800 - stage.replica.clock.time())
    stage.first.default = llm.answer("from the first")
    assert stage.replica.preferred is None
    assert await stage.asked() == "first"


async def test_answers_in_flight_do_not_renew_a_preference(stage: Stage) -> None:
    """Under load somebody is always in the middle of an answer by the backup when the preference runs out."""
    await stage.first_fails()
    assert await stage.asked(choice="first") == "first"
    assert stage.replica.preferred == "second"
    held = asyncio.Event()
    stage.second.script(llm.gate(held))
    in_flight = asyncio.create_task(stage.asked())
    await stage.second.arrival(2)

    stage.replica.clock.shift(1800)
    held.set()

    assert await in_flight == "second"
    assert stage.replica.preferred is None
    assert await stage.asked() == "first"


async def test_answers_in_flight_do_not_undo_a_clear(stage: Stage) -> None:
    """An admin brings the first provider back; what the second was still answering does not take that back."""
    await stage.first_fails()
    held = asyncio.Event()
    stage.second.script(llm.gate(held))
    in_flight = asyncio.create_task(stage.asked())
    await stage.second.arrival(2)

    await stage.fallback.control.reset("first")
    held.set()

    assert await in_flight == "second"
    assert await stage.asked() == "first"


async def test_a_failure_of_the_preferred_clears_the_preference(stage: Stage) -> None:
    await stage.first_fails()
    stage.second.script(llm.status(529))

    assert await stage.asked() == "third"
    assert stage.replica.preferred == "third"
    assert await stage.asked() == "third"


async def test_a_stale_success_does_not_end_a_newer_cooldown(stage: Stage) -> None:
    """A request that began before the failure says nothing about what came after it."""
    held = asyncio.Event()
    stage.first.script(llm.gate(held))
    in_flight = asyncio.create_task(stage.asked())
    await stage.first.arrival(1)
    stage.replica.clock.shift(1)
    await stage.first_fails()

    held.set()

    assert await in_flight == "first"
    assert stage.replica.cooling() == {"first": 300}
    assert await stage.asked() == "second"


async def test_a_second_cooldown_does_not_shorten_the_first(stage: Stage) -> None:
    stage.first.script(llm.status(401), llm.status(429, headers={"retry-after": "5"}))
    await stage.asked()
    await stage.asked(choice="first")

    assert stage.replica.cooling() == {"first": 1800}


# Coming back


async def test_during_the_cooldown_nobody_asks(stage: Stage) -> None:
    await stage.first_fails()
    stage.replica.clock.shift(299)

    assert await stage.asked() == "second"
    assert stage.counts() == [1, 2, 0]


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_after_the_cooldown_one_request_probes(stage: Stage, *, streamed: bool) -> None:
    """Of 64 at the same instant exactly one reaches the first provider, the others are answered by the second."""
    # 64 requests that start at once keep a slow machine busy for longer than a request may wait for the lease.
    stage.replica.set_timing(lease_wait_s=5.0)
    await stage.first_fails()
    stage.replica.clock.shift(300)
    held = asyncio.Event()
    stage.first.default = llm.gate(held, then=llm.answer("from the first"))

    requests = [asyncio.create_task(stage.asked(streamed=streamed)) for _ in range(64)]
    await eventually(lambda: sum(request.done() for request in requests) == 63)
    assert stage.fallback.get_provider_status().providers[0].state is ProviderState.PROBING
    held.set()
    answered = await asyncio.gather(*requests)

    assert sorted(answered) == ["first"] + ["second"] * 63
    assert stage.counts() == [2, 64, 0]
    assert stage.replica.preferred == "first"
    assert await stage.asked() == "first"


async def test_a_probe_that_fails_costs_nobody_an_answer(stage: Stage) -> None:
    """The next candidate answers it, and the first provider cools down once more."""
    await stage.first_fails()
    stage.replica.clock.shift(300)
    stage.first.script(llm.status(529))

    assert await stage.asked() == "second"
    assert stage.replica.cooling() == {"first": 300}
    assert await stage.asked() == "second"
    assert stage.counts() == [2, 3, 0]


async def test_a_cancelled_probe_gives_the_lease_back(stage: Stage) -> None:
    """The next request probes."""
    await stage.first_fails()
    stage.replica.clock.shift(300)
    stage.first.script(llm.hang())
    probe = asyncio.create_task(stage.asked())
    request = await stage.first.arrival(2)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    await asyncio.wait_for(request.abandoned.wait(), 5)

    assert stage.replica.cooling() == {}
    assert await stage.asked() == "first"


async def test_a_probe_cancelled_while_it_waits_for_the_lease_gives_it_back(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.first_fails()
    stage.replica.clock.shift(300)
    monkeypatch.setattr(stage.replica.shared, "commit", _slowly(stage.replica.shared))
    probe = asyncio.create_task(stage.asked())
    await eventually(lambda: bool(stage.replica.shared.routing.probes))
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe

    assert not stage.replica.shared.routing.probes


def _slowly(shared: SharedRouting) -> Callable[[Change, float], Awaitable[bool]]:
    async def commit(change: Change, timeout_s: float) -> bool:
        shared.apply(change)
        await asyncio.sleep(10 * timeout_s)
        return True

    return commit


async def test_a_lease_that_is_not_granted_in_time_is_given_back(stage: Stage) -> None:
    """The request does not probe, since another replica may; it goes where the others go."""
    await stage.first_fails()
    stage.replica.clock.shift(300)
    stage.replica.set_timing(lease_wait_s=0.0)
    async with stage.replica.shared._exchange:
        assert await stage.asked() == "second"
    stage.replica.set_timing(lease_wait_s=RoutingTiming().lease_wait_s)
    assert not stage.replica.shared.routing.probes

    assert await stage.asked() == "first"


async def test_a_probe_without_a_verdict_gives_the_lease_back(stage: Stage) -> None:
    """A request that no provider would take says nothing about this one."""
    await stage.first_fails()
    stage.replica.clock.shift(300)
    stage.first.script(llm.status(400))

    with pytest.raises(RequestRejected):
        await stage.asked()

    assert await stage.asked() == "first"


async def test_a_prober_that_died_blocks_nobody_for_long(stage: Stage) -> None:
    """Its lease ends a little after the longest answer would have."""
    await stage.first_fails()
    stage.replica.clock.shift(300)
    await stage.fallback.begin(RequestSpec("never heard of again"))

    assert await stage.asked() == "second"
    stage.replica.clock.shift(10)
    assert await stage.asked() == "first"


async def test_only_who_stands_above_the_preferred_is_probed(stage: Stage) -> None:
    stage.second.script(llm.status(529))
    await stage.asked(choice="second")
    assert stage.replica.cooling() == {"second": 300}
    stage.replica.clock.shift(300)

    assert await stage.asked() == "first"
    assert stage.counts() == [2, 1, 0]


# What says nothing about the order


async def test_an_answer_after_a_context_window_skip_is_no_preference(stage: Stage) -> None:
    stage.first.script(llm.context_exceeded())

    assert await stage.asked() == "second"
    assert stage.replica.preferred is None
    assert await stage.asked() == "first"


async def test_a_window_known_to_be_no_larger_is_not_tried(stage: Stage) -> None:
    """Nor counted as one of the hops; a larger or unknown one is."""
    async with bench(
        open_redis(None), windows(stage, "gpt-4", "gpt-4", "gpt-4.1"), rules=RoutingLimits(max_hops=2)
    ) as replica:
        stage.first.script(llm.context_exceeded())
        assert answered_by(await replica.ask(streamed=True)) == "third"
    assert stage.counts() == [1, 0, 1]

    async with bench(open_redis(None), windows(stage, "gpt-4", "llama-of-some-size", "gpt-4.1")) as replica:
        stage.first.script(llm.context_exceeded())
        assert answered_by(await replica.ask(streamed=True)) == "second"


def windows(stage: Stage, *families: str) -> list[ProviderSettings]:
    """The providers, their models of families whose context windows are known (or not)."""
    return [
        replace(settings, kind=ProviderKind.OPENAI, families={settings.default_model: family})
        for settings, family in zip(stage.fallback.providers, families, strict=True)
    ]


PIXEL = BinaryContent(b"\x89PNG\r\n\x1a\n", media_type="image/png")
PICTURES = [PIXEL, ImageUrl("https://example.org/cat.png")]


def with_picture(picture: BinaryContent | ImageUrl) -> list[ModelMessage]:
    return [ModelRequest(parts=[UserPromptPart(["What is this?", picture])])]


@pytest.mark.parametrize("picture", PICTURES, ids=["bytes", "address"])
async def test_a_picture_goes_to_who_sees(stage: Stage, picture: BinaryContent | ImageUrl) -> None:
    """Candidates that see come first; that says nothing about the order of requests without pictures."""
    seeing = [
        replace(settings, families={settings.default_model: family})
        for settings, family in zip(stage.fallback.providers, ("llama3.2", "gpt-4o", "llama3.2"), strict=True)
    ]
    async with bench(open_redis(None), seeing) as replica:
        response = await replica.ask(streamed=True, messages=with_picture(picture))

        assert answered_by(response) == "second"
        assert "image_url" in str(stage.second.requests[0].json)
        assert replica.preferred is None
        assert answered_by(await replica.ask(streamed=True)) == "first"


@pytest.mark.parametrize("picture", PICTURES, ids=["bytes", "address"])
async def test_who_does_not_see_gets_a_remark(stage: Stage, picture: BinaryContent | ImageUrl) -> None:
    """Where nobody sees, or where a blind model was picked, the request does not fail for the picture."""
    response = await stage.replica.ask(streamed=True, messages=with_picture(picture))

    sent = str(stage.first.requests[0].json)
    assert answered_by(response) == "first"
    assert "[an image that you cannot see]" in sent
    assert "image_url" not in sent


async def test_a_blind_choice_is_still_the_choice(stage: Stage) -> None:
    seeing = [replace(settings, families={"first-model": "gpt-4o"}) for settings in stage.fallback.providers]
    async with bench(open_redis(None), seeing) as replica:
        response = await replica.ask(streamed=True, choice="third", messages=with_picture(PIXEL))

    assert answered_by(response) == "third"


async def test_a_picture_is_no_probe_of_who_does_not_see_it(stage: Stage) -> None:
    """The lease stays free for a request that would be answered by the provider in question."""
    seeing = [replace(settings, families={"second-model": "gpt-4o"}) for settings in stage.fallback.providers]
    async with bench(open_redis(None), seeing) as replica:
        stage.first.script(llm.status(529))
        await replica.ask(streamed=True)
        replica.clock.shift(300)

        held = asyncio.Event()
        stage.second.script(llm.gate(held))
        in_flight = asyncio.create_task(replica.ask(streamed=True, messages=with_picture(PIXEL)))
        await stage.second.arrival(2)
        assert answered_by(await replica.ask(streamed=True)) == "first"
        held.set()
        assert answered_by(await in_flight) == "second"


# Leaving early


async def stream_of(stage: Stage, heard: asyncio.Event) -> None:
    """Read a stream to its end, telling when the first piece was heard."""
    async for _ in stage.replica.pieces():
        heard.set()


async def test_a_stop_before_the_first_output_blames_nobody(stage: Stage) -> None:
    """And hangs up on the provider."""
    stage.first.default = llm.hang()
    task = asyncio.create_task(stage.asked())
    request = await stage.first.arrival(1)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(request.abandoned.wait(), 5)
    assert stage.counts() == [1, 0, 0]
    assert stage.replica.cooling() == {}


async def test_a_stop_in_mid_stream_blames_nobody(stage: Stage) -> None:
    stage.first.default = llm.stall(after_pieces=2)
    heard = asyncio.Event()
    task = asyncio.create_task(stream_of(stage, heard))
    request = await stage.first.arrival(1)
    await heard.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(request.abandoned.wait(), 5)
    assert stage.counts() == [1, 0, 0]
    assert stage.replica.cooling() == {}


async def test_cancelling_the_response_blames_nobody(stage: Stage) -> None:
    """The library's own way to stop a stream, from beside its reader."""
    stage.first.default = llm.stall(after_pieces=2)
    model = stage.replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        reading = asyncio.create_task(_read(stream))
        await asyncio.sleep(0.05)
        await stream.cancel()
        await asyncio.wait_for(reading, 5)

    assert stream.get().state == "interrupted"
    assert stage.replica.cooling() == {}


async def _read(stream: StreamedResponse) -> int:
    return len([event async for event in stream])


async def test_a_consumer_that_leaves_blames_nobody(stage: Stage) -> None:
    stage.first.default = llm.stall(after_pieces=3)
    model = stage.replica.factory.create_llm_model_with_fallback("test")
    async with model_request_stream(model, HELLO) as stream:
        async for event in stream:
            if isinstance(event, PartDeltaEvent):
                break

    await asyncio.wait_for(stage.first.requests[0].abandoned.wait(), 5)
    assert stage.replica.cooling() == {}
    assert stage.replica.preferred is None


async def test_a_slow_consumer_is_not_the_provider_s_fault() -> None:
    """Neither a stall nor the time for a whole answer counts what the consumer takes between two pieces."""
    async with staged(stall_timeout_s=0.4, timeout_s=0.7) as stage:
        stage.first.default = llm.answer(pieces=["word "] * 3)
        heard: list[str] = []
        async for piece in stage.replica.pieces():
            heard.append(piece)
            await asyncio.sleep(0.45)

        assert len(heard) == 3
        assert stage.replica.cooling() == {}


async def test_the_first_output_takes_no_longer_than_a_whole_answer_may() -> None:
    async with staged() as stage:
        stage.first.default = llm.hang()
        first, second, _ = stage.fallback.providers
        impatient = replace(first, timeout_s=0.1, first_token_timeout_s=60.0)
        async with bench(open_redis(None), [impatient, second]) as replica, asyncio.timeout(5):
            assert answered_by(await replica.ask(streamed=True)) == "second"


# What agents do


@pytest.mark.parametrize("streamed", [False, True], ids=["run", "run_stream_events"])
async def test_each_step_of_a_tool_loop_asks_for_candidates_anew(stage: Stage, *, streamed: bool) -> None:
    """The provider that asked for the tool fails at the next step: another one gets the tool's result."""
    stage.first.script(llm.tool_call("double", {"number": 21}), llm.status(529))
    agent = Agent(stage.replica.factory.create_llm_model_with_fallback("test"))

    @agent.tool_plain
    def double(number: int) -> int:
        return 2 * number

    if streamed:
        async with agent.run_stream_events("Double 21.") as events:
            async for event in events:
                if event.event_kind == "agent_run_result":
                    output = event.result.output
    else:
        output = (await agent.run("Double 21.")).output

    assert output == "from the second"
    assert stage.counts() == [2, 1, 0]
    assert "42" in str(stage.second.requests[0].json["messages"][-1])


async def test_a_tool_call_is_an_answer(stage: Stage) -> None:
    """Without a word of text."""
    stage.first.script(llm.tool_call("double", {"number": 21}))

    assert await stage.asked() == "first"


async def test_a_stop_in_an_agent_blames_nobody(stage: Stage) -> None:
    stage.first.default = llm.stall(after_pieces=2)
    agent = Agent(stage.replica.factory.create_llm_model_with_fallback("test"))
    heard = asyncio.Event()

    async def run() -> None:
        async with agent.run_stream_events("Hello?") as events:
            async for event in events:
                if isinstance(event, PartDeltaEvent):
                    heard.set()

    task = asyncio.create_task(run())
    await asyncio.wait_for(heard.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await asyncio.wait_for(stage.first.requests[0].abandoned.wait(), 5)
    assert stage.replica.cooling() == {}


async def test_settings_reach_whoever_answers(stage: Stage) -> None:
    """Those of the factory, overridden by those of the request."""
    stage.first.script(llm.status(529))
    model = stage.replica.factory.create_llm_model_with_fallback("test", ModelSettings(temperature=0.5, max_tokens=7))
    agent = Agent(model)

    await agent.run("Hello?", model_settings=ModelSettings(temperature=0.1))

    assert stage.second.requests[0].json["temperature"] == 0.1
    assert stage.second.requests[0].json["max_tokens"] == 7


async def test_a_response_says_who_gave_it_and_who_did_not(stage: Stage) -> None:
    stage.first.script(llm.status(529))

    response = await stage.replica.ask(streamed=True)

    stamp = last_provenance([response])
    assert stamp is not None
    assert (stamp.provider, stamp.model, stamp.failed) == (
        "second",
        "second-model",
        (("first", "HTTP 529 (overloaded)"),),
    )
    assert said(response) == "from the second"


# Reports from elsewhere


async def test_a_reported_failure_counts_like_one_that_was_seen(stage: Stage) -> None:
    await stage.fallback.report_provider_failure("first", TimeoutError("too slow"), "test")

    assert stage.replica.cooling() == {"first": 300}
    assert await stage.asked() == "second"


# (what a caller saw, the reason that operators read)
REPORTS: list[tuple[Exception, str]] = [
    (ConnectionRefusedError(111, "Connect call failed"), "connection refused"),
    (ConnectionResetError(104, "Connection reset by peer"), "connection reset"),
    (socket.gaierror(-2, "Name or service not known"), "host not found"),
    (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "TLS failed"),
    (httpx2.ConnectTimeout("connecting took too long"), "timed out"),
    (httpx2.RemoteProtocolError("Server disconnected"), "connection closed without an answer"),
    (Exception("what nobody has a name for"), "Exception"),
]


@pytest.mark.parametrize(("error", "reason"), REPORTS, ids=[type(error).__name__ for error, _ in REPORTS])
async def test_whatever_a_caller_saw_of_a_connection_counts(stage: Stage, error: Exception, reason: str) -> None:
    """Not every caller goes through an adapter that gives errors the library's names."""
    await stage.fallback.report_provider_failure("first", error, "test")

    assert stage.replica.cooling() == {"first": 300}
    assert stage.fallback.get_provider_status().providers[0].reason == reason


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("a bug of ours")], ids=["stopped", "our bug"])
async def test_a_reported_failure_of_ours_blames_nobody(stage: Stage, error: BaseException) -> None:
    await stage.fallback.report_provider_failure("first", error, "test")

    assert stage.replica.cooling() == {}
    assert stage.fallback.get_provider_status().providers[0].failures == 0
    assert await stage.asked() == "first"


async def test_a_reported_success_makes_the_preference(stage: Stage) -> None:
    await stage.fallback.report_provider_success("second", "test")

    assert stage.replica.preferred == "second"
    assert await stage.asked() == "second"


async def test_reports_about_somebody_unknown_are_errors(stage: Stage) -> None:
    with pytest.raises(UnknownProvider):
        await stage.fallback.report_provider_success("fourth", "test")
    with pytest.raises(UnknownProvider):
        await stage.fallback.report_provider_failure("fourth", TimeoutError(), "test")


async def test_clear_cache_brings_the_priority_order_back(stage: Stage) -> None:
    """Force and preference go, cooldowns stay."""
    await stage.first_fails()
    stage.replica.clock.shift(300)
    stage.second.script(llm.status(529))
    stage.first.script(llm.status(529))
    assert await stage.asked() == "third"
    await stage.fallback.force_provider("third")

    await stage.fallback.clear_cache()

    status = stage.fallback.get_provider_status()
    assert (status.forced, status.preferred) == (None, None)
    assert set(stage.replica.cooling()) == {"first", "second"}


async def test_an_admin_s_cooldown_and_its_end(stage: Stage) -> None:
    await stage.fallback.control.cool_down("first", 60, by="4711")
    assert await stage.asked() == "second"

    await stage.fallback.control.reset("first")
    assert await stage.asked() == "first"


# Status and listeners


async def test_status_in_every_state(stage: Stage) -> None:
    """Each state with when it ends and why, in the order of the dict."""
    lacking = ProviderSettings(
        id="fourth", kind=ProviderKind.OPENAI, models=("m",), missing="FOURTH_API_KEY is not set"
    )
    async with bench(open_redis(None), [*stage.fallback.providers, lacking]) as replica:
        fallback, now = replica.fallback, replica.clock.time()

        def states() -> list[tuple[str, float | None, str | None]]:
            return [(one.state.value, one.until, one.reason) for one in fallback.get_provider_status().providers]

        fourth = ("not_configured", None, "FOURTH_API_KEY is not set")
        well = ("healthy", None, None)
        assert states() == [well, well, well, fourth]

        stage.first.script(llm.status(529))
        await replica.ask(streamed=True)
        cooling = ("cooling", now + 300, "HTTP 529 (overloaded)")
        preferred = ("preferred", now + 1800, None)
        assert states() == [cooling, preferred, well, fourth]

        await fallback.force_provider("third", 400)
        assert states() == [cooling, preferred, ("forced", now + 400, None), fourth]

        replica.clock.shift(300)
        assert states()[0] == ("half_open", None, "HTTP 529 (overloaded)")
        await fallback.clear_cache()
        attempts = await fallback.begin(RequestSpec("probe"))
        assert states()[0] == ("probing", None, "HTTP 529 (overloaded)")
        attempts.close()
        assert states()[0] == ("half_open", None, "HTTP 529 (overloaded)")

        status = fallback.get_provider_status()
        assert status.shared
        first, second = status.providers[:2]
        assert (first.requests, first.failures, first.last_error) == (1, 1, "HTTP 529 (overloaded)")
        assert (second.requests, second.failures, len(second.first_output_s)) == (1, 0, 1)
        assert (first.kind, first.models) == ("openai_compatible", ("first-model", "first-large"))


async def test_somebody_who_lacks_something_is_never_asked(stage: Stage) -> None:
    lacking = replace(stage.fallback.providers[0], missing="FIRST_API_KEY is not set")
    async with bench(open_redis(None), [lacking, *stage.fallback.providers[1:]]) as replica:
        await replica.fallback.force_provider("first")
        await replica.fallback.report_provider_success("first", "test")

        assert answered_by(await replica.ask(streamed=True)) == "second"
        assert replica.preferred == "second"


async def test_listeners_hear_of_a_switch_once_and_of_the_recovery(stage: Stage) -> None:
    """Further failures and successes are silent."""
    await stage.first_fails()
    await stage.asked()
    assert stage.events == [LeaderChanged("first", "second", "HTTP 529 (overloaded)")]

    stage.replica.clock.shift(300)
    await stage.asked()
    await stage.asked()
    assert stage.events[1:] == [LeaderChanged("second", "first", None)]


async def test_who_does_not_lead_fails_in_silence(stage: Stage) -> None:
    stage.third.script(llm.status(529))
    await stage.asked(choice="third")

    assert stage.events == []


async def test_listeners_hear_of_a_wrong_key_once(stage: Stage) -> None:
    """However many requests meet it at once, and however many probes after them, until it was mended."""
    stage.first.default = llm.status(401)
    await asyncio.gather(*(stage.asked() for _ in range(8)))
    stage.replica.clock.shift(1800)
    await stage.asked()
    told = [event for event in stage.events if isinstance(event, Misconfigured)]
    assert told == [Misconfigured("first", "HTTP 401 (invalid_api_key)")]

    stage.first.default = llm.answer()
    stage.replica.clock.shift(1800)
    await stage.asked()
    stage.first.default = llm.status(401)
    await stage.asked()
    assert len([event for event in stage.events if isinstance(event, Misconfigured)]) == 2


async def test_a_refusal_does_not_count_against_the_provider(stage: Stage) -> None:
    stage.first.script(llm.refusal())
    with pytest.raises(ContentRefused):
        await stage.asked()

    assert stage.fallback.get_provider_status().providers[0].failures == 0
    assert await stage.asked() == "first"


async def test_an_interruption_is_a_failure_of_the_provider(stage: Stage) -> None:
    """The next request goes elsewhere."""
    stage.first.script(llm.cut(after_pieces=2))
    with pytest.raises(AnswerInterrupted):
        await stage.asked()

    assert await stage.asked() == "second"


async def test_a_picked_model_that_is_gone_cools_nobody_down(stage: Stage) -> None:
    """A chat chose a model that its provider no longer has: the others go on asking that provider."""
    stage.first.script(llm.status(404))

    response = await stage.replica.ask(streamed=True, choice=ModelChoice("first", "first-gone"))

    assert answered_by(response) == "second"
    assert stage.replica.cooling() == {}


async def test_a_refusal_carries_the_words_of_the_provider(stage: Stage) -> None:
    """What its filter says about the request is told to whoever wrote it."""
    stage.first.default = llm.content_filter_rejected()

    with pytest.raises(ContentRefused) as refused:
        await stage.replica.ask(streamed=False)

    assert not refused.value.reason.startswith("HTTP")
    assert "filter" in refused.value.reason
