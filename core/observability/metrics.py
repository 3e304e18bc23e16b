"""Prometheus registry; each package declares its own metrics in a metrics.py.

Such a module stands next to the code that it measures (`services/llm/routing/metrics.py`), is given the `Metrics` and
asks it for counters, histograms and gauges. No label may hold a user, a chat or free text; models only if configured.
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
"""The label of everything that is not configured: chats may pick any model of a provider's live list."""
SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 20.0, 30.0, 60.0)
"""Buckets for how long people wait; 12, 20 and 60 s are the providers' deadlines."""
QUICK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)
"""Buckets for calls that are over in a moment when all is well."""

Reading = float | Mapping[str, float]


class Metrics:
    """The registry of one process, and what no single room owns: tokens and cost.

    Args:
        models: the configured pairs of provider and model.
    """

    def __init__(self, models: Iterable[tuple[str, str]] = ()) -> None:
        # The library would show a second line for each counter, with the instant of its first increase.
        disable_created_metrics()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self._models = frozenset(models)
        self._providers = frozenset(provider for provider, _ in self._models)
        self._tokens = self.counter("tokens", "Tokens by direction", ("provider", "model", "direction"))
        self._lines: dict[tuple[str, str], tuple[Counter, Counter]] = {}
        self._cost = self.counter("cost_usd", "What answers cost, in US dollars", ("provider", "model"))

    def counter(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Counter:
        """A counter, shown as `understudy_<name>_total`."""
        return Counter(PREFIX + name, meaning, labels, registry=self.registry)

    def gauge(self, name: str, meaning: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge that whoever changes it sets; see `reading` for what can be looked up when it is asked for."""
        return Gauge(PREFIX + name, meaning, labels, registry=self.registry)

    def histogram(
        self, name: str, meaning: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS
    ) -> Histogram:
        """A histogram; a time is in seconds and says so in its name."""
        return Histogram(PREFIX + name, meaning, labels, registry=self.registry, buckets=buckets)

    def reading(self, name: str, meaning: str, read: Callable[[], Reading], label: str | None = None) -> None:
        """A gauge that is looked up when somebody asks for it, and costs nothing otherwise.

        Args:
            name: shown as `understudy_<name>`.
            meaning: one line of help.
            read: the value, or with `label` the values by that label; it must be quick and have no side effects.
            label: the label's name.
        """
        self.registry.register(_Reading(PREFIX + name, meaning, read, label))

    def provider_label(self, provider: str) -> str:
        """The provider as a label."""
        return provider if provider in self._providers else OTHER

    def model_label(self, provider: str, model: str) -> str:
        """The model as a label."""
        return model if (provider, model) in self._models else OTHER

    def tokens(self, provider: str, model: str, tokens_in: int, tokens_out: int) -> None:
        """Count what a request took in and gave out."""
        labels = (self.provider_label(provider), self.model_label(provider, model))
        line = self._lines.get(labels)
        if line is None:
            # Looked up once: the library looks labels up under a lock.
            line = self._lines[labels] = (self._tokens.labels(*labels, "in"), self._tokens.labels(*labels, "out"))
        line[0].inc(tokens_in)
        line[1].inc(tokens_out)

    def cost(self, provider: str, model: str, usd: float) -> None:
        """Count what a request cost."""
        self._cost.labels(self.provider_label(provider), self.model_label(provider, model)).inc(usd)

    def exposition(self, accept: str | None = None) -> tuple[bytes, str]:
        """Everything as Prometheus reads it, and its content type.

        Args:
            accept: the formats that the asker understands, as its header tells.
        """
        encode, content_type = choose_encoder(accept or "")
        return encode(self.registry), content_type


class _Reading:
    """A collector over a function."""

    def __init__(self, name: str, meaning: str, read: Callable[[], Reading], label: str | None) -> None:
        self._name = name
        self._meaning = meaning
        self._read = read
        self._labels = [label] if label is not None else []

    def describe(self) -> Iterator[Metric]:
        """What there will be, so that a name is not given twice."""
        yield GaugeMetricFamily(self._name, self._meaning, labels=self._labels)

    def collect(self) -> Iterator[Metric]:
        """The values of this moment."""
        family = GaugeMetricFamily(self._name, self._meaning, labels=self._labels)
        value = self._read()
        if isinstance(value, Mapping):
            for name, each in value.items():
                family.add_metric([name], each)
        else:
            family.add_metric([], value)
        yield family
