"""The metrics registry: exposition formats and allowed labels."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.observability.metrics import Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample by its name and the values of its labels."""
    text = metrics.exposition()[0].decode()
    return {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_create_counters_gauges_and_histograms() -> None:
    metrics = Metrics()
    metrics.counter("verdicts", "Verdicts", ("category",)).labels("ok").inc(2)
    metrics.gauge("inbox_size", "Updates that wait").set(7)
    metrics.histogram("judge_seconds", "Time of a verdict", buckets=(1, 2)).observe(1.5)
    shown = samples(metrics)
    assert shown["understudy_verdicts_total", ("ok",)] == 2
    assert shown["understudy_inbox_size", ()] == 7
    assert shown["understudy_judge_seconds_bucket", ("1.0",)] == 0
    assert shown["understudy_judge_seconds_bucket", ("2.0",)] == 1
    assert not any(name.endswith("_created") for name, _ in shown)


def test_reading_is_computed_on_each_scrape() -> None:
    metrics = Metrics()
    waiting, by_room = [1.0], {"a": 1.0}
    metrics.reading("waiting", "What waits", lambda: waiting[0])
    metrics.reading("rooms", "By room", lambda: by_room, label="room")
    assert samples(metrics)["understudy_waiting", ()] == 1
    waiting[0] = 5
    by_room["b"] = 3.0
    shown = samples(metrics)
    assert shown["understudy_waiting", ()] == 5
    assert (shown["understudy_rooms", ("a",)], shown["understudy_rooms", ("b",)]) == (1, 3)


def test_duplicate_metric_names_are_rejected() -> None:
    """Also where one is a reading and the other is not."""
    metrics = Metrics()
    metrics.reading("waiting", "What waits", lambda: 1)
    with pytest.raises(ValueError, match="understudy_waiting"):
        metrics.gauge("waiting", "The same")


def test_registries_are_independent() -> None:
    one, two = Metrics([("a", "m")]), Metrics([("a", "m")])
    one.cost("a", "m", 3)
    assert samples(one)["understudy_cost_usd_total", ("m", "a")] == 3
    assert ("understudy_cost_usd_total", ("m", "a")) not in samples(two)


def test_cost_labels_configured_models_only() -> None:
    """However many models chats pick, they share a line."""
    metrics = Metrics([("a", "m"), ("b", "n")])
    for model in ("m", "a-new-one", "another-one", "n"):
        metrics.cost("a", model, 0.5)
    metrics.cost("nobody", "m", 1)
    shown = samples(metrics)
    assert shown["understudy_cost_usd_total", ("other", "a")] == 1.5
    assert shown["understudy_cost_usd_total", ("other", "other")] == 1


def test_exposition_supports_both_prometheus_formats() -> None:
    """Negotiated by the Accept header."""
    metrics = Metrics()
    assert metrics.exposition()[1].startswith("text/plain")
    body, content_type = metrics.exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
