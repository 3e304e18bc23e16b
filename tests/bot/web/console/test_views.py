"""The states of providers in words, as the overview and the list show them."""

from dataclasses import replace
from datetime import UTC

import pytest

from bot.web.console.frame.provider_views import ProviderFacts, ProviderView, provider_views, strip_views
from core.config.providers import ProviderKind, ProviderSettings
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.state.clock_bounds import SET_BY_ADMIN
from services.llm.routing.status import ProviderState, ProviderStatus, ServiceStatus
from services.usage.totals import UsageTotal

NOON = 12 * 3600.0


def views(*statuses: ProviderStatus, cap: float | None = None, spent: float = 0.0) -> list[ProviderView]:
    """Return the views of providers in this order; the first one has a cap and has spent so much today."""
    configured = {
        each.provider: ProviderSettings(id=each.provider, kind=ProviderKind.OPENAI_COMPATIBLE, models=("m",))
        for each in statuses
    }
    first = statuses[0].provider
    configured[first] = replace(configured[first], budget_day_usd=cap)
    today = {first: UsageTotal(cost_usd=spent)}
    facts = ProviderFacts(list(configured), configured, {}, today, NOON, UTC)
    return provider_views(ServiceStatus(statuses, None, None, shared=True), facts)


def cooling(fault: Fault | None, reason: str) -> ProviderStatus:
    return ProviderStatus("a", "openai", ("m",), ProviderState.COOLING, NOON + 300, reason, fault=fault)


@pytest.mark.parametrize(
    ("fault", "reason", "key", "needs_operator"),
    [
        (Fault.MISCONFIGURED, "HTTP 401 (invalid_api_key)", "web-cause-key", True),
        (Fault.MISCONFIGURED, "HTTP 402", "web-cause-account", True),
        (Fault.MISCONFIGURED, "HTTP 429 (insufficient_quota)", "web-cause-account", True),
        (Fault.MISCONFIGURED, "HTTP 404", "web-cause-settings", True),
        (Fault.MODEL_GONE, "HTTP 404 (model_not_found)", "web-cause-model", True),
        (Fault.RATE_LIMITED, "HTTP 429", "web-cause-quota", False),
        (Fault.DOWN, "connection refused", "web-cause-down", False),
        (Fault.HICCUP, "HTTP 500", "web-cause-errors", False),
        (Fault.LOADING, "HTTP 503", "web-cause-loading", False),
        (Fault.UNREADABLE, "unreadable answer", "web-cause-unreadable", False),
        (None, SET_BY_ADMIN, "web-state-cooling", False),
        # An entry of an earlier version, or of a newer one whose fault is unknown here.
        (None, "HTTP 401", "web-state-cooling", False),
    ],
)
def test_state_names_the_cause_of_a_cooldown(
    fault: Fault | None, reason: str, key: str, *, needs_operator: bool
) -> None:
    (view,) = views(cooling(fault, reason))
    assert (view.look.key, view.until, view.needs_operator) == (key, "12:05", needs_operator)


def test_provider_over_its_cap_does_not_answer() -> None:
    statuses = [ProviderStatus(name, "openai", ("m",), ProviderState.HEALTHY) for name in "ab"]
    assert [view.look.key for view in views(*statuses, cap=3, spent=2.99)] == [
        "web-state-answers",
        "web-state-stands-by",
    ]
    assert [view.look.key for view in views(*statuses, cap=3, spent=3)] == ["web-state-over-cap", "web-state-answers"]


def test_strip_shows_who_answers_who_is_next_and_what_needs_an_operator() -> None:
    statuses = [
        cooling(Fault.RATE_LIMITED, "HTTP 429"),
        replace(cooling(Fault.MISCONFIGURED, "HTTP 401"), provider="b"),
        *(ProviderStatus(name, "openai", ("m",), ProviderState.HEALTHY) for name in "cde"),
    ]
    configured = {
        each.provider: ProviderSettings(id=each.provider, kind=ProviderKind.OPENAI_COMPATIBLE, models=("m",))
        for each in statuses
    }
    facts = ProviderFacts("cdeab", configured, {}, None, NOON, UTC)
    shown = strip_views(ServiceStatus(tuple(statuses), None, None, shared=True), facts)
    assert [(view.id, view.look.key) for view in shown] == [
        ("c", "web-state-answers"),
        ("d", "web-state-stands-by"),
        ("b", "web-cause-key"),
    ]


def test_end_of_a_state_has_a_date_only_where_it_is_far_away() -> None:
    for seconds, shown in ((300, "12:05"), (13 * 3600, "01:00"), (24 * 3600, "1970-01-02 12:00")):
        (view,) = views(replace(cooling(Fault.DOWN, "timed out"), until=NOON + seconds))
        assert view.until == shown
