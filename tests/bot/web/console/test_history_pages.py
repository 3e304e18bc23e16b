"""The graphics of the console: states of a day, figures and plots, from what the services recorded."""

import asyncio
from datetime import UTC

import pytest

from bot.web.console.plots import draw_plot, draw_spark, draw_timeline
from services.history.figures import DAY, Point, Series
from services.history.states import RecordedState, Span, StateHistory
from tests.bot.web.console.conftest import ConsoleBrowser

NOW = 1_800_000_000.0
START = int(NOW) - DAY


@pytest.mark.integration
async def test_overview_shows_states_and_figures_of_the_day(browser: ConsoleBrowser) -> None:
    infra, llm = browser.services.infra, browser.services.llm
    recorder = StateHistory(llm.fallback, browser.services.operators.history, infra.database, infra.clock)
    await recorder.step()
    await browser.answered_by()
    await browser.sign_in()
    await browser.submit("/console/providers/beta/force", **{"for": "1800"})
    await recorder.step()
    page = ""
    # Figures are cached for a moment.
    async with asyncio.timeout(20):
        while "was forced" not in page:
            page = await browser.open("/console")
    assert ": answered</title>" in page
    assert ": forced</title>" in page
    assert "<strong>beta</strong> was forced" in page
    assert '<svg class="spark' in await browser.open("/console/providers")
    page = await browser.open("/console/usage?days=7")
    assert 'aria-label="Requests by provider, up to 1"' in page
    assert "style=" not in page


def test_timeline_draws_a_gap_where_no_process_ran() -> None:
    spans = {
        "own": [
            Span(RecordedState.ANSWERS, None, START - 100, START + 6 * 3600),
            Span(RecordedState.COOLING, "HTTP 500", START + 12 * 3600, START + 12 * 3600 + 1),
            Span(RecordedState.ANSWERS, None, START + 18 * 3600, int(NOW)),
        ]
    }
    timeline = draw_timeline(spans, ["own", "new"], NOW, UTC)
    assert [name for name, _ in timeline.lanes] == ["own", "new"]
    bars = timeline.lanes[0][1]
    # A state of a second is drawn three minutes wide.
    assert [(bar.x, bar.width) for bar in bars] == [("0.00%", "25.00%"), ("50.00%", "0.21%"), ("75.00%", "25.00%")]
    assert (bars[1].reason, bars[1].pattern) == ("HTTP 500", "url(#p-cool)")
    assert [(event.state, event.at) for event in timeline.events] == [
        (RecordedState.ANSWERS, "02:00"),
        (RecordedState.COOLING, "20:00"),
    ]


def test_timeline_of_a_provider_that_changes_all_the_time_stays_small() -> None:
    states = (RecordedState.ANSWERS, RecordedState.COOLING)
    spans = [Span(states[at % 2], None, START + at * 43, START + at * 43 + 43) for at in range(2000)]
    ((_, bars),) = draw_timeline({"own": spans}, ["own"], NOW, UTC).lanes
    assert len(bars) <= 288
    # Failures of ten minutes are visible beside successes of the same time.
    assert {bar.state for bar in bars} == {RecordedState.COOLING}


def test_plot_has_a_gap_where_nothing_was_measured() -> None:
    counts = [{4: 1}, {}, {4: 2}, {4: 1}]
    points = [Point(requests=sum(each.values()), first_output=each) for each in counts]
    series = Series([0, 900, 1800, 2700], 900, {"own": points})
    drawn = draw_plot(series, ["own"], lambda point: point.first_output_s(0.5), lambda value: f"{value:g} s", UTC)
    assert drawn is not None
    assert drawn.lines[0].path.count("M") == 2
    assert drawn.ticks[-1][1] == drawn.top
    assert drawn.instants[0][1] == "00:00"


def test_plot_of_nothing_is_none() -> None:
    series = Series([0, 900], 900, {"own": [Point(), Point()]})
    assert draw_plot(series, ["own"], lambda point: float(point.requests), str, UTC) is None
    assert draw_spark([]).line == ""


@pytest.mark.parametrize(
    ("largest", "top"), [(0.00031, "0.0005"), (0.8, "1"), (1, "1"), (7, "10"), (12, "20"), (230, "500")]
)
def test_plot_ends_at_a_round_value(largest: float, top: str) -> None:
    series = Series([0, 900], 900, {"own": [Point(cost_usd=largest), Point()]})
    drawn = draw_plot(series, ["own"], lambda point: point.cost_usd, lambda value: f"{value:g}", UTC)
    assert drawn is not None
    assert drawn.top == top


def test_failovers_are_counted_by_the_hour_and_returns_are_not() -> None:
    hour = 3600
    first = [
        Span(RecordedState.ANSWERS, None, NOW - 20 * hour, NOW - 5 * hour),
        Span(RecordedState.COOLING, "HTTP 500", NOW - 5 * hour, NOW - 4 * hour),
        Span(RecordedState.ANSWERS, None, NOW - 4 * hour, NOW - 60),
        Span(RecordedState.COOLING, "HTTP 500", NOW - 60, NOW),
    ]
    second = [
        Span(RecordedState.STANDS_BY, None, NOW - 20 * hour, NOW - 5 * hour),
        Span(RecordedState.ANSWERS, None, NOW - 5 * hour, NOW - 4 * hour),
        Span(RecordedState.STANDS_BY, None, NOW - 4 * hour, NOW - 60),
        Span(RecordedState.ANSWERS, None, NOW - 60, NOW),
    ]
    timeline = draw_timeline({"a": first, "b": second}, ["a", "b"], NOW, UTC)
    assert (sum(timeline.failovers), timeline.failovers[19], timeline.failovers[23]) == (2, 1, 1)
    # A change of the order is no failover.
    assert sum(draw_timeline({"a": first[:1], "b": second[3:]}, ["b", "a"], NOW, UTC).failovers) == 0
