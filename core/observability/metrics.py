"""Prometheus registry; each package declares its own metrics.

Its class stands next to the code that it measures (`services/llm/routing/metrics.py`) and creates its counters,
histograms and gauges through `Metrics`. No label may hold a user, a chat or free text; models only if configured.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

PREFIX = "understudy_"
OTHER = "other"
"""Label of models that are not configured: chats may pick any model of a provider's live list."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 20.0, 30.0, 60.0)
"""Buckets for user-facing latency; 12, 20 and 60 s are the providers' default deadlines."""
QUICK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
"""Buckets for calls that normally take milliseconds."""

Reading = float | Mapping[str, float]


class Metrics:
    """The metrics registry of one process, with the cost of answers.

    Args:
        models: the configured pairs of provider and model, the only ones shown as labels.
    """

    def __init__(self, models: Iterable[tuple[str, str]] = ()) -> None:
        # Otherwise each counter has a second series with its creation time.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.models: frozenset[tuple[str, str]] = frozenset()
        """The configured pairs of provider and model, which are the labels of their figures."""
        self._providers: frozenset[str] = frozenset()
        self.allow_models(models)
        self._cost = self.counter("cost_usd", "What answers cost, in US dollars", ("provider", "model"))

    def allow_models(self, models: Iterable[tuple[str, str]]) -> None:
        """Shows these pairs of provider and model as labels from now on, and no others."""
        self.models = frozenset(models)
        self._providers = frozenset(provider for provider, _ in self.models)

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        """Creates a counter, exposed as `understudy_<name>_total`."""
        return Counter(PREFIX + name, meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        """Creates a gauge that its owner sets; `reading` creates one that is computed on each scrape."""
        return Gauge(PREFIX + name, meaning, labels, registry=self.registry)

    def histogram(
        self, name: str, meaning: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """Creates a histogram. Times are in seconds, and the name ends with the unit."""
        return Histogram(PREFIX + name, meaning, labels, registry=self.registry, buckets=buckets)

    def reading(self, name: str, meaning: str, read: Callable[[], Reading], label: str | None = None) -> None:
        """Registers a gauge that is computed on each scrape.

        Args:
            name: exposed as `understudy_<name>`.
            meaning: one line of help.
            read: returns the value, or with `label` the values by label; must be quick and free of side effects.
            label: name of the label.
        """
        self.registry.register(_Reading(PREFIX + name, meaning, read, label))

    def model_labels(self, provider: str, model: str) -> tuple[str, str]:
        """Returns the label values of a provider and a model."""
        return (
            provider if provider in self._providers else OTHER,
            model if (provider, model) in self.models else OTHER,
        )

    def cost(self, provider: str, model: str, usd: float) -> None:
        """Counts the cost of a request."""
        self._cost.labels(*self.model_labels(provider, model)).inc(usd)

    def exposition(self, accept: str | None = None) -> tuple[bytes, str]:
        """Returns all metrics in a Prometheus text format, and its content type.

        Args:
            accept: the scraper's Accept header.
        """
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type


class _Reading:
    """Collects a gauge from a function."""

    def __init__(self, name: str, meaning: str, read: Callable[[], Reading], label: str | None) -> None:
        self._name = name
        self._meaning = meaning
        self._read = read
        self._labels = [label] if label is not None else []

    def describe(self) -> Iterator[Metric]:
        """Yields the family without values, by which the registry detects duplicate names."""
        yield GaugeMetricFamily(self._name, self._meaning, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """Yields the current values."""
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        value = self._read()
        if isinstance(value, Mapping):
            for label, number in value.items():
                family.add_metric([label], number)
        else:
            family.add_metric([], value)
        yield family
