"""The dashboard and the alerts against the metrics of a running bot."""

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.support.bot_harness import SECOND, BotHarness
from tests.support.fake_llm.server import status
from tests.support.processes.redis_server import free_port
from tests.support.promql import asked_for
from tests.support.web_client import WebClient

DEPLOY = Path(__file__).parents[2] / "deploy"
OPERATIONS = DEPLOY.parent / "docs/operations.md"
WORD = "a-long-random-word"
OF_PROMETHEUS = {"up"}
"""Provided by Prometheus itself, like the labels job and instance."""


def expressions() -> list[str]:
    """Every expression of the dashboard and the alerts."""
    dashboard = json.loads((DEPLOY / "grafana/understudy.json").read_text(encoding="utf-8"))
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    queries = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    found += [query.removeprefix("label_values(").rpartition(", ")[0] for query in queries]
    rules = yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text(encoding="utf-8"))
    return [*found, *(rule["expr"] for group in rules["groups"] for rule in group["rules"])]


async def test_dashboards_and_alerts_use_existing_metrics(empty_stage: BotHarness) -> None:
    """After a failover, so that every series exists; the docs explain all of them."""
    stage = empty_stage
    port = free_port()
    await stage.start(WEB_PORT=str(port), WEB_TOKEN=WORD)
    stage.first.default = status(503)
    assert (await stage.asks("Are you there?")).text == SECOND
    text = (await WebClient(port, WORD).get("/metrics")).text
    shown: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        shown |= {f"{name}{suffix}" for suffix in ("_bucket", "_sum", "_count")} if kind == "histogram" else {name}
    documented = set(re.findall(r"`(understudy_\w+)`", OPERATIONS.read_text(encoding="utf-8")))
    families = set(re.findall(r"^# TYPE (understudy_\S+)", text, re.MULTILINE))
    assert documented == families
    labels = {"job", "instance", *re.findall(r'[{,]([a-z_]+)="', text)}
    assert len(expressions()) > 40
    for expression in expressions():
        names, of = asked_for(expression)
        assert names, expression
        assert names <= shown | OF_PROMETHEUS, expression
        assert of <= labels, expression


@pytest.mark.parametrize(
    ("expression", "names", "labels"),
    [
        ("up == 0", {"up"}, set()),
        ('sum by (le, a) (rate(x_bucket{job="$job",b=~"c|d"}[5m])) > 0.1', {"x_bucket"}, {"le", "a", "job", "b"}),
        ("3600 * max_over_time(x[1h] offset 5m) / on(a) y_total and z", {"x", "y_total", "z"}, {"a"}),
        ("histogram_quantile(0.95, sum(rate(x_bucket[$__rate_interval])))", {"x_bucket"}, set()),
    ],
)
def test_promql_parser_finds_metrics_and_labels(expression: str, names: set[str], labels: set[str]) -> None:
    """The test above depends on it."""
    assert asked_for(expression) == (names, labels)
