"""Reports from outside a request, operator commands, status, and the events that listeners receive."""

import asyncio
import socket
import ssl
from dataclasses import replace

import httpx2
import pytest

from core.config.providers import ProviderKind
from core.config.settings import ProviderSettings
from core.errors import AnswerInterrupted, ContentRefused, UnknownProvider
from core.redis.client import open_redis
from services.llm.request import ModelChoice, RequestSpec
from services.llm.routing.events import LeaderChanged, Misconfigured
from tests.support.fake_llm import server as llm
from tests.support.fallback_harness import FallbackHarness
from tests.support.llm_harness import answered_by, bench

pytestmark = pytest.mark.integration


async def test_reported_failure_counts_like_an_observed_one(harness: FallbackHarness) -> None:
    await harness.fallback.report_provider_failure("first", TimeoutError("too slow"), "test")

    assert harness.replica.cooling() == {"first": 300}
    assert await harness.asked() == "second"


# (the caller's error, the reason shown to operators)
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
async def test_reported_connection_error_starts_a_cooldown_with_its_reason(
    harness: FallbackHarness, error: Exception, reason: str
) -> None:
    """Not every caller uses an adapter that translates errors into the library's."""
    await harness.fallback.report_provider_failure("first", error, "test")

    assert harness.replica.cooling() == {"first": 300}
    assert harness.fallback.get_provider_status().providers[0].reason == reason


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyError("a bug of ours")], ids=["stopped", "our bug"])
async def test_reported_internal_error_records_no_failure(harness: FallbackHarness, error: BaseException) -> None:
    await harness.fallback.report_provider_failure("first", error, "test")

    assert harness.replica.cooling() == {}
    assert harness.fallback.get_provider_status().providers[0].failures == 0
    assert await harness.asked() == "first"


async def test_reported_success_sets_the_preference(harness: FallbackHarness) -> None:
    await harness.fallback.report_provider_success("second", "test")

    assert harness.replica.preferred == "second"
    assert await harness.asked() == "second"


async def test_report_about_an_unknown_provider_raises(harness: FallbackHarness) -> None:
    with pytest.raises(UnknownProvider):
        await harness.fallback.report_provider_success("fourth", "test")
    with pytest.raises(UnknownProvider):
        await harness.fallback.report_provider_failure("fourth", TimeoutError(), "test")


async def test_clear_cache_restores_the_priority_order(harness: FallbackHarness) -> None:
    """Force and preference end, cooldowns stay."""
    await harness.first_fails()
    harness.replica.clock.shift(300)
    harness.second.script(llm.status(529))
    harness.first.script(llm.status(529))
    assert await harness.asked() == "third"
    await harness.fallback.force_provider("third")

    await harness.fallback.clear_cache()

    status = harness.fallback.get_provider_status()
    assert (status.forced, status.preferred) == (None, None)
    assert set(harness.replica.cooling()) == {"first", "second"}


async def test_admin_cooldown_and_its_reset(harness: FallbackHarness) -> None:
    await harness.fallback.control.cool_down("first", 60, by="4711")
    assert await harness.asked() == "second"

    await harness.fallback.control.reset("first")
    assert await harness.asked() == "first"


async def test_status_in_every_state(harness: FallbackHarness) -> None:
    """Each state with its end and reason, in order of priority."""
    lacking = ProviderSettings(
        id="fourth", kind=ProviderKind.OPENAI, models=("m",), missing="FOURTH_API_KEY is not set"
    )
    async with bench(open_redis(None), [*harness.fallback.providers, lacking]) as replica:
        fallback, now = replica.fallback, replica.clock.time()

        def states() -> list[tuple[str, float | None, str | None]]:
            return [(one.state.value, one.until, one.reason) for one in fallback.get_provider_status().providers]

        fourth = ("not_configured", None, "FOURTH_API_KEY is not set")
        well = ("healthy", None, None)
        assert states() == [well, well, well, fourth]

        harness.first.script(llm.status(529))
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
        await anext(attempts)
        assert states()[0] == ("probing", None, "HTTP 529 (overloaded)")
        attempts.close()
        assert states()[0] == ("half_open", None, "HTTP 529 (overloaded)")

        status = fallback.get_provider_status()
        assert status.shared
        first, second = status.providers[:2]
        assert (first.requests, first.failures, first.last_error) == (1, 1, "HTTP 529 (overloaded)")
        assert (second.requests, second.failures, len(second.first_output_s)) == (1, 0, 1)
        assert (first.kind, first.models) == ("openai_compatible", ("first-model", "first-large"))


async def test_unconfigured_provider_is_never_asked(harness: FallbackHarness) -> None:
    lacking = replace(harness.fallback.providers[0], missing="FIRST_API_KEY is not set")
    async with bench(open_redis(None), [lacking, *harness.fallback.providers[1:]]) as replica:
        await replica.fallback.force_provider("first")
        await replica.fallback.report_provider_success("first", "test")

        assert answered_by(await replica.ask(streamed=True)) == "second"
        assert replica.preferred == "second"


async def test_listeners_receive_a_switch_once_and_the_recovery(harness: FallbackHarness) -> None:
    """Further failures and successes cause no event."""
    await harness.first_fails()
    await harness.asked()
    assert harness.events == [LeaderChanged("first", "second", "HTTP 529 (overloaded)")]

    harness.replica.clock.shift(300)
    await harness.asked()
    await harness.asked()
    assert harness.events[1:] == [LeaderChanged("second", "first", None)]


async def test_failure_of_a_provider_that_does_not_lead_emits_no_event(harness: FallbackHarness) -> None:
    harness.third.script(llm.status(529))
    await harness.asked(choice="third")

    assert harness.events == []


async def test_listeners_receive_a_wrong_key_once(harness: FallbackHarness) -> None:
    """However many requests and probes fail, until it is fixed."""
    harness.first.default = llm.status(401)
    await asyncio.gather(*(harness.asked() for _ in range(8)))
    harness.replica.clock.shift(1800)
    await harness.asked()
    told = [event for event in harness.events if isinstance(event, Misconfigured)]
    assert told == [Misconfigured("first", "HTTP 401 (invalid_api_key)")]

    harness.first.default = llm.answer()
    harness.replica.clock.shift(1800)
    await harness.asked()
    harness.first.default = llm.status(401)
    await harness.asked()
    assert len([event for event in harness.events if isinstance(event, Misconfigured)]) == 2


async def test_content_refusal_records_no_failure(harness: FallbackHarness) -> None:
    harness.first.script(llm.refusal())
    with pytest.raises(ContentRefused):
        await harness.asked()

    assert harness.fallback.get_provider_status().providers[0].failures == 0
    assert await harness.asked() == "first"


async def test_interrupted_answer_is_a_failure_of_the_provider(harness: FallbackHarness) -> None:
    """The next request asks another provider."""
    harness.first.script(llm.cut(after_pieces=2))
    with pytest.raises(AnswerInterrupted):
        await harness.asked()

    assert await harness.asked() == "second"


async def test_missing_chosen_model_starts_no_cooldown(harness: FallbackHarness) -> None:
    """A chat chose a model that no longer exists: the provider's default answers, here and in other chats."""
    harness.first.script(llm.model_unknown())

    response = await harness.replica.ask(streamed=True, choice=ModelChoice("first", "first-gone"))

    assert answered_by(response) == "first"
    assert [request.model for request in harness.first.requests] == ["first-gone", "first-model"]
    assert harness.replica.cooling() == {}
    assert harness.events == []


async def test_content_refusal_carries_the_provider_message(harness: FallbackHarness) -> None:
    """The filter's message is shown to the user."""
    harness.first.default = llm.content_filter_rejected()

    with pytest.raises(ContentRefused) as refused:
        await harness.replica.ask(streamed=False)

    assert not refused.value.reason.startswith("HTTP")
    assert "filter" in refused.value.reason
