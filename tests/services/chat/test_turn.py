"""TurnMetrics: the tokens of turns by model."""

from prometheus_client.parser import text_string_to_metric_families

from core.observability.metrics import Metrics
from services.chat.turn import TurnMetrics


def tokens(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Every count of tokens by direction, model and provider."""
    text = metrics.exposition()[0].decode()
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith("understudy_tokens")
    }


def test_tokens_are_counted_for_configured_models_only() -> None:
    """However many models chats pick, they share a line."""
    metrics, other = Metrics([("a", "m"), ("b", "n")]), Metrics([("a", "m")])
    turns = TurnMetrics(metrics)
    TurnMetrics(other)
    for model in ("m", "a-new-one", "another-one", "n"):
        tokens_in, tokens_out = turns.tokens["a", model]
        tokens_in.inc(10)
        tokens_out.inc(2)
    assert tokens(metrics) == {
        ("in", "m", "a"): 10,
        ("out", "m", "a"): 2,
        ("in", "other", "a"): 30,
        ("out", "other", "a"): 6,
    }
    assert tokens(other) == {}
