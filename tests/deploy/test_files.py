"""The deployment files against the settings and the web side that they are written for."""

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from jsonschema.validators import validator_for

from bot.web.server import WebTiming
from core.config.settings import Settings, load_settings
from core.observability.trace_export import FLUSH_S
from services.inbox.dbos_queue import QueueTiming

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
YAML_FILES = sorted(DEPLOY.rglob("*.yaml"))
AFTERWARDS_S = QueueTiming().cancel_grace_s + WebTiming().shutdown_s + FLUSH_S
"""Time that a shutdown may take beyond SHUTDOWN_TIMEOUT."""


@cache
def documents(path: Path) -> list[Any]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def manifest(name: str) -> Any:
    (document,) = documents(DEPLOY / "kubernetes" / name)
    return document


def compose() -> Any:
    (document,) = documents(DEPLOY / "compose.yaml")
    return document


def settings_of_cluster() -> Settings:
    """Configuration of a pod."""
    return load_settings(None, {**manifest("configmap.yaml")["data"], **manifest("secret.example.yaml")["stringData"]})


def routes() -> dict[str, str]:
    """The paths of the web side, each with its method, as its source names them."""
    tree = ast.parse((ROOT / "bot/web/endpoints.py").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "HttpRoute"]
    return {ast.literal_eval(call.args[1]): ast.literal_eval(call.args[0]) for call in calls}


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_file_parses(path: Path) -> None:
    assert all(documents(path))


def test_the_cluster_s_settings_are_settings_without_a_mistake() -> None:
    """Every variable exists, every value is taken, nothing is warned of, and the daemon would start."""
    settings = settings_of_cluster()
    settings.require_daemon()
    assert settings.warnings == ()
    assert settings.telegram_mode == "webhook"
    known = {name.upper() for name in type(settings).model_fields}
    given = {*manifest("configmap.yaml")["data"], *manifest("secret.example.yaml")["stringData"]}
    providers = tuple(f"{provider.id.upper()}_" for provider in settings.providers)
    assert {name for name in given if name not in known and not name.startswith(providers)} == set()
    secret = {name for name, field in Settings.model_fields.items() if "SecretStr" in str(field.annotation)}
    assert not {name.upper() for name in secret} & set(manifest("configmap.yaml")["data"])


def test_compose_s_settings_are_settings_without_a_mistake() -> None:
    """On top of .env.example, from which deploy/.env is made."""
    environment = compose()["services"]["bot"]["environment"]
    known = {name.upper() for name in Settings.model_fields}
    assert set(environment) <= known
    values = {name: re.sub(r"\$\{[^}]*\}", "word", value) for name, value in environment.items()}
    settings = load_settings(ROOT / ".env.example", {**values, "TELEGRAM_BOT_TOKEN": "1:a", "OPENAI_API_KEY": "key"})
    settings.require_daemon()
    assert settings.warnings == ()
    assert settings.redis_url is not None
    assert settings.redis_url.get_secret_value() == "redis://:word@redis:6379/0"
    assert {"redis", "postgres"} <= set(compose()["services"])


def test_what_is_interpolated_is_told_at_the_top_of_the_file() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    head = text.partition("name:")[0]
    assert {name for name in re.findall(r"\$\{([A-Z_]+)", text) if name not in head} == set()


def test_there_is_time_to_stop() -> None:
    """Longer than the bot may take, in both."""
    default = load_settings(None, {}).shutdown_timeout
    assert seconds(compose()["services"]["bot"]["stop_grace_period"]) > default + AFTERWARDS_S
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > settings_of_cluster().shutdown_timeout + AFTERWARDS_S


def test_probes_use_endpoints_that_need_no_token() -> None:
    container = manifest("deployment.yaml")["spec"]["template"]["spec"]["containers"][0]
    asked = {name: container[name]["httpGet"] for name in ("livenessProbe", "startupProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in asked.items()} == {
        "livenessProbe": "/healthz",
        "startupProbe": "/healthz",
        "readinessProbe": "/readyz",
    }
    assert all(routes()[probe["path"]] == "GET" for probe in asked.values())
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {probe["port"] for probe in asked.values()} <= set(ports)
    assert ports["web"] == settings_of_cluster().web_port
    assert settings_of_cluster().web_host == "0.0.0.0"
    (port,) = manifest("service.yaml")["spec"]["ports"]
    assert port["targetPort"] in ports


def test_telegram_s_deliveries_reach_the_replicas_and_nothing_else_does() -> None:
    """The address that Telegram is told is the ingress's, and the proxy of compose serves the same path."""
    (rule,) = manifest("ingress.example.yaml")["spec"]["rules"]
    (path,) = rule["http"]["paths"]
    assert settings_of_cluster().telegram_webhook_url == f"https://{rule['host']}{path['path']}"
    assert path["backend"]["service"]["name"] == manifest("service.yaml")["metadata"]["name"]
    labels = manifest("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    for name in ("service.yaml", "disruption.yaml"):
        selector = manifest(name)["spec"]["selector"]
        assert selector.get("matchLabels", selector).items() <= labels.items()
    caddyfile = (DEPLOY / "Caddyfile").read_text(encoding="utf-8")
    assert re.findall(r"handle (/\S+)", caddyfile) == [path["path"]]


def test_compose_is_valid_by_the_schema_of_its_specification() -> None:
    schema = json.loads(
        files("check_jsonschema.builtin_schemas.vendor").joinpath("compose-spec.json").read_text("utf-8")
    )
    validator = validator_for(schema)(schema)
    validator.validate(compose())
    assert not validator.is_valid(compose() | {"services": {"bot": {"image": "x", "cap-drop": ["ALL"]}}})


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("kubernetes/*.yaml")), ids=lambda path: path.name)
@pytest.mark.parametrize("version", ["1.32", "1.37"])
def test_manifests_are_valid_by_the_schemas_of_the_api(path: Path, version: str) -> None:
    for document in documents(path):
        if document["kind"] != "Kustomization":
            kubernetes_validate.validate(document, version, strict=True)
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(document | {"specs": {}}, version, strict=True)


@pytest.mark.parametrize("name", ["bot", "redis", "postgres", "proxy"])
def test_every_container_of_compose_is_confined(name: str) -> None:
    """Read-only, without capabilities and without a way to gain some; a crash is restarted."""
    services = compose()["services"]
    assert set(services) == {"bot", "redis", "postgres", "proxy"}
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["restart"] == "unless-stopped"
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert ("user" in service) is (name in {"redis", "postgres"})
    assert bool(service.get("ports")) is (name == "proxy"), "only the proxy is published"


def test_the_stores_are_reached_by_the_bot_only_and_with_a_password() -> None:
    document = compose()
    services = document["services"]
    assert document["networks"]["stores"] == {"internal": True}
    assert {name: service["networks"] for name, service in services.items()} == {
        "bot": ["outside", "stores"], "redis": ["stores"], "postgres": ["stores"], "proxy": ["outside"],
    }  # fmt: skip
    command = services["redis"]["command"]
    assert command[command.index("--requirepass") + 1].startswith("${REDIS_PASSWORD:?")
    assert services["redis"]["environment"]["REDISCLI_AUTH"].startswith("${REDIS_PASSWORD:?")
    assert "POSTGRES_PASSWORD" in services["postgres"]["environment"]


def test_images_are_named_by_an_exact_version() -> None:
    """A moving tag brings in untested versions."""
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    images = [
        *re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE),
        *(service["image"] for service in compose()["services"].values()),
        *(container["image"] for container in pod["containers"]),
    ]
    assert len(images) == 7
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?(-[a-z0-9]+)*$|@sha256:[0-9a-f]{64}$", image), image
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert {image for image in images if image.startswith("understudy")} == {f"understudy:{version}"}


def test_the_pods_reach_and_are_reached_by_what_they_need_only() -> None:
    policy = manifest("network.yaml")["spec"]
    labels = manifest("deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert all(rule.get("from") and rule["ports"] for rule in policy["ingress"])
    assert all(rule.get("to") and rule["ports"] for rule in policy["egress"])
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 6379, 5432}
    (world, _) = next(rule["to"] for rule in policy["egress"] if "ipBlock" in rule["to"][0])
    # The metadata service of a cloud's machines.
    assert "169.254.0.0/16" in world["ipBlock"]["except"]


def test_the_bot_has_no_more_rights_than_it_needs() -> None:
    """Read-only, as no one in particular, without capabilities; with places to write to where it writes."""
    bot = compose()["services"]["bot"]
    assert [mount.partition(":")[0] for mount in bot["tmpfs"]] == ["/tmp", "/data"]  # noqa: S108 - a container's
    pod = manifest("deployment.yaml")["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/data", "/tmp"]  # noqa: S108 - the same
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    uid = str(pod["securityContext"]["runAsUser"])
    assert re.findall(r"^USER (\d+):(\d+)$", dockerfile, re.MULTILINE) == [(uid, uid)]
    assert re.findall(r"^ENTRYPOINT (.*)$", dockerfile, re.MULTILINE) == ['["python", "-m", "bot.supervisor"]']


def test_redis_is_persistent() -> None:
    command = compose()["services"]["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"


def test_every_file_of_the_cluster_is_applied_and_no_secret_is_committed() -> None:
    listed = manifest("kustomization.yaml")["resources"]
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == {name.replace(".example", "") for name in there}
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {f"deploy/kubernetes/{name}" for name in set(listed) - there} <= set(ignored)


def test_the_image_gets_the_sources_and_nothing_of_anybody() -> None:
    """The files that the Dockerfile copies are let in, and no others."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    copied = set(re.findall(r"^COPY (?!--from)(\S+)", dockerfile, re.MULTILINE))
    assert copied == let_in
    assert all((ROOT / name).exists() for name in copied)


def panels() -> Iterator[dict[str, Any]]:
    dashboard = json.loads((DEPLOY / "grafana/understudy.json").read_text(encoding="utf-8"))
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_every_alert_is_explained() -> None:
    (rules,) = documents(DEPLOY / "prometheus/alerts.yaml")
    names = [rule["alert"] for group in rules["groups"] for rule in group["rules"]]
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in text] == []
