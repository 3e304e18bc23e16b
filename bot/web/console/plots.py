"""Computes the geometry of the console's inline SVG from the history. It is written as attributes, without styles."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from itertools import pairwise
from typing import Final

from services.history.figures import DAY, HOUR, Point, Series
from services.history.states import RecordedState, Span

NARROWEST_S: Final = 180
"""Minimum width of a state in seconds, so that short ones stay visible."""
COLOURS: Final = 6
"""Colours of plots; the seventh provider has the first one with another dash."""
EVENTS: Final = 8
MOST_BARS: Final = 150
"""Maximum number of separate bars per lane; beyond it, bars within ten minutes are merged into the worst state."""
MERGED_S: Final = 600

_FULL = (3.0, 25.0)
_LOW = (17.0, 11.0)
_LINE = (25.0, 3.0)


@dataclass(frozen=True, slots=True)
class StateLook:
    """The bar and icon of a state; bars differ in height and pattern too, so that colour is not needed."""

    css: str
    icon: str
    place: tuple[float, float]
    pattern: str = ""


STATE_LOOKS: Final = {
    RecordedState.ANSWERS: StateLook("live", "i-live", _FULL),
    RecordedState.STANDS_BY: StateLook("ok", "i-ok", _LOW),
    RecordedState.FORCED: StateLook("forced", "i-forced", _FULL, "url(#p-forced)"),
    RecordedState.COOLING: StateLook("cool", "i-cool", _FULL, "url(#p-cool)"),
    RecordedState.PROBING: StateLook("cool", "i-probe", _LOW, "url(#p-cool)"),
    RecordedState.NOT_CONFIGURED: StateLook("off", "i-off", _LINE),
}


_REFUSED: Final = StateLook("fail", "i-fail", _FULL, "url(#p-fail)")
_REFUSALS: Final = ("HTTP 401", "HTTP 402", "HTTP 403")
"""Beginnings of the reasons of a pause that only an operator can end."""

_BY_SEVERITY: Final = (
    RecordedState.COOLING,
    RecordedState.NOT_CONFIGURED,
    RecordedState.PROBING,
    RecordedState.FORCED,
    RecordedState.ANSWERS,
    RecordedState.STANDS_BY,
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle; x and width in percent. `begin` and `end` are times of day."""

    x: str
    width: str
    y: str
    height: str
    css: str
    pattern: str = ""
    state: RecordedState | None = None
    begin: str = ""
    end: str = ""
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class StateChange:
    """A provider entered a state."""

    provider: str
    state: RecordedState
    look: StateLook
    reason: str | None
    at: str


@dataclass(frozen=True, slots=True)
class Timeline:
    """The states of a day: a lane of bars for each provider, times of day below, and the newest changes.

    `failovers` counts by the hour how often a provider took over from one before it in the order.
    """

    lanes: Sequence[tuple[str, Sequence[Bar]]]
    hours: Sequence[tuple[str, str]]
    events: Sequence[StateChange]
    failovers: Sequence[int]


def draw_timeline(spans: Mapping[str, Sequence[Span]], order: Sequence[str], now: float, zone: tzinfo) -> Timeline:
    """Draws the last 24 hours.

    Args:
        order: the configured providers; others are left out.
        now: seconds since the epoch.
    """
    begin = now - DAY
    clock = _clock(zone)

    def bar(span: Span) -> Bar:
        start, end = max(begin, span.began_at), min(now, span.seen_at)
        width = max(NARROWEST_S, end - start)
        look = _look(span)
        x = min(start - begin, DAY - width)
        y, height = look.place
        return Bar(
            _percent(x / DAY), _percent(width / DAY), f"{y:g}", f"{height:g}", look.css, look.pattern, span.state,
            clock(start), clock(end), span.reason,
        )  # fmt: skip

    known = [(name, [span for span in spans.get(name, ()) if span.seen_at >= begin]) for name in order]
    entered = [
        (span.began_at, name, span)
        for name, found in known
        for before, span in pairwise(found)
        if span.state is not before.state and _is_event(before.state, span.state)
    ]
    newest = sorted(entered, key=lambda each: -each[0])[:EVENTS]
    return Timeline(
        [(name, [bar(span) for span in _merged(found)]) for name, found in known],
        [(_percent(share / 4), clock(begin + DAY * share / 4)) for share in range(4)],
        [StateChange(name, span.state, _look(span), span.reason, clock(at)) for at, name, span in newest],
        _count_failovers(known, begin),
    )


def _count_failovers(known: Sequence[tuple[str, Sequence[Span]]], begin: float) -> Sequence[int]:
    """Counts the times at which a provider began to answer in place of one before it in the order, by the hour."""
    leads = sorted(
        (span.began_at, rank)
        for rank, (_, spans) in enumerate(known)
        for span in spans
        if span.state is RecordedState.ANSWERS
    )
    hours = [0] * 24
    for (_, before), (at, after) in pairwise(leads):
        if after > before and at >= begin:
            hours[min(23, int((at - begin) // HOUR))] += 1
    return hours


def _look(span: Span) -> StateLook:
    is_refused = span.state is RecordedState.COOLING and (span.reason or "").startswith(_REFUSALS)
    return _REFUSED if is_refused else STATE_LOOKS[span.state]


def _merged(spans: Sequence[Span]) -> Sequence[Span]:
    """Merges short spans, so that a page that is refreshed every few seconds stays small."""
    if len(spans) <= MOST_BARS:
        return spans
    ranks = {state: rank for rank, state in enumerate(_BY_SEVERITY)}
    merged: list[Span] = []
    for span in spans:
        if merged and span.seen_at - merged[-1].began_at < MERGED_S:
            worst = min((merged[-1], span), key=lambda each: ranks[each.state])
            merged[-1] = Span(worst.state, worst.reason, merged[-1].began_at, span.seen_at)
        else:
            merged.append(span)
    return merged


@dataclass(frozen=True, slots=True)
class Spark:
    """A line without axes, in a box of 100 by 28; `area` is the surface below it."""

    line: str
    area: str


def draw_spark(values: Sequence[float]) -> Spark:
    """Draws a line from zero up to the largest value."""
    top = max(values, default=0) or 1
    last = max(1, len(values) - 1)
    corners = [f"{100 * index / last:.1f} {26 - 23 * value / top:.1f}" for index, value in enumerate(values)]
    line = "M" + " L".join(corners) if corners else ""
    return Spark(line, f"{line} L100 28 L0 28z" if line else "")


@dataclass(frozen=True, slots=True)
class PlotLine:
    """The line of one provider in a box of 100 by 100; its gaps are where nothing was measured."""

    provider: str
    css: str
    path: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot with its axes.

    Args:
        top: the largest value, formatted.
        ticks: heights in percent with their values.
        instants: places in percent with their dates or times.
    """

    lines: Sequence[PlotLine]
    top: str
    ticks: Sequence[tuple[str, str]]
    instants: Sequence[tuple[str, str]]


def draw_plot(
    series: Series,
    order: Sequence[str],
    measure: Callable[[Point], float | None],
    show: Callable[[float], str],
    zone: tzinfo,
) -> Plot | None:
    """Draws a measure of each provider over time; None if nothing was measured.

    Args:
        order: providers by their colours.
        measure: None where nothing was measured.
        show: formats a value.
    """
    found = {name: [measure(point) for point in points] for name, points in series.points.items()}
    top = max((value for values in found.values() for value in values if value is not None), default=0.0)
    if not top:
        return None
    top = _rounded_up(top)
    names = [*order, *sorted(set(found) - set(order))]
    last = max(1, len(series.instants) - 1)
    lines = [
        PlotLine(name, _line_css(rank), _path(found[name], top, last))
        for rank, name in enumerate(names)
        if name in found and any(found[name])
    ]
    clock = _clock(zone) if series.step_s < DAY / 4 else _date(zone)
    marks = [round(last * share / 4) for share in range(5)]
    return Plot(
        lines,
        show(top),
        [(_percent((4 + 88 * (1 - share / 2)) / 100), show(top * share / 2)) for share in range(3)],
        [(_percent((8 + 88 * mark / last) / 100), clock(series.instants[mark])) for mark in marks],
    )


def first_output_median(point: Point) -> float | None:
    """Returns the median time to first output, in seconds."""
    return point.first_output_s(0.5)


def _path(values: Sequence[float | None], top: float, last: int) -> str:
    parts: list[str] = []
    is_gap = True
    for index, value in enumerate(values):
        if value is not None:
            parts.append(f"{'M' if is_gap else 'L'}{100 * index / last:.1f} {100 - 100 * value / top:.1f}")
            if is_gap and (index + 1 == len(values) or values[index + 1] is None):
                # A lone point is drawn as a short line, so that it is visible.
                parts.append("h0.4")
        is_gap = value is None
    return "".join(parts)


def _line_css(rank: int) -> str:
    dash = ("", " dash", " dot")[(rank + rank // COLOURS) % 3]
    return f"s{rank % COLOURS + 1}{dash}"


def _is_event(before: RecordedState, after: RecordedState) -> bool:
    """Returns whether a change is listed as an event: not a probe, nor a return to standby."""
    if after is RecordedState.STANDS_BY:
        return before is not RecordedState.ANSWERS
    return after is not RecordedState.PROBING


def _rounded_up(value: float) -> float:
    """Returns the next of 1, 2, 5, 10, 20 and so on."""
    power = 10.0 ** (len(f"{int(value)}") - 1) if value >= 1 else 1.0
    while value < power:
        power /= 10
    return next(power * factor for factor in (1, 2, 5, 10) if value <= power * factor * (1 + 1e-9))


def _percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _clock(zone: tzinfo) -> Callable[[float], str]:
    return lambda at: datetime.fromtimestamp(at, zone).strftime("%H:%M")


def _date(zone: tzinfo) -> Callable[[float], str]:
    return lambda at: datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d")
