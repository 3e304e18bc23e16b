"""MCP_SERVERS: its forms, its mistakes, and the values that must appear in no log."""

import json
from typing import Any

import pytest

from core.config.settings import load_settings
from core.config.tool_servers import parse_tool_servers
from core.errors import ConfigurationError


def servers(**entries: Any) -> str:
    return json.dumps({"mcpServers": entries})


def test_parse_reads_commands_and_urls() -> None:
    text = servers(
        time={"command": "mcp-server-time", "args": ["--utc"], "env": {"A": "b"}, "allowedTools": ["now"]},
        far={"url": "https://tools.example.org/mcp", "headers": {"Authorization": "Bearer key-of-far"}},
        near={"url": "http://192.168.0.7:8000/mcp"},
    )
    time, far, near = parse_tool_servers(text)
    assert (time.command, time.arguments, time.environment, time.allowed) == (
        "mcp-server-time", ("--utc",), {"A": "b"}, frozenset({"now"}),
    )  # fmt: skip
    assert (far.is_remote, near.is_remote, time.is_remote) == (True, False, False)
    assert far.allowed is None
    assert "key-of-far" not in repr(far)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "JSON object"),
        ("{}", "mcpServers"),
        (servers(**{"bad name": {"command": "x"}}), "the name"),
        (servers(a=[]), "must be an object"),
        (servers(a={}), 'either "command" or "url"'),
        (servers(a={"command": "x", "url": "http://x"}), 'either "command" or "url"'),
        (servers(a={"url": "ftp://x"}), "http"),
        (servers(a={"url": "http://[x"}), "http"),
        (servers(a={"command": ""}), "program"),
        (servers(a={"command": "x", "args": "y"}), "list of texts"),
        (servers(a={"command": "x", "env": {"A": 1}}), "from name to text"),
        (servers(a={"url": "http://x", "headers": {"A": "b\r\nC: d"}}), "from name to text"),
        (servers(a={"url": "http://x", "headers": {"A": "ключ"}}), "headers"),
        (servers(a={"url": "http://x", "headers": {"A B": "c"}}), "headers"),
        (servers(a={"command": "x", "env": {"A=B": "c"}}), "names without ="),
        (servers(a={"command": "x\0"}), "program"),
        (servers(a={"command": "x", "alowedTools": []}), "unknown field"),
    ],
)
def test_a_mistake_is_one_line_without_values(text: str, fault: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None, {"MCP_SERVERS": text})
    (line,) = [line for line in caught.value.mistakes if line.startswith("MCP_SERVERS")]
    assert fault in line


def test_headers_and_keys_are_secrets() -> None:
    """Secrets are masked in every field of a server; a key may have several lines."""
    text = servers(
        a={
            "url": "http://me:pass-of-a@x/mcp?api_key=query-of-a&page=one",
            "headers": {"Authorization": "Bearer key-of-a"},
        },
        b={"command": "x", "args": ["--api-key=key-of-b", "--token", "token-of-b", "--port", "8000"]},
        c={"command": "x", "args": ["--header", "Authorization: Bearer key-of-c"], "env": {"A_SECRET": "line\nof-c"}},
    )
    settings = load_settings(None, {"MCP_SERVERS": text})
    expected = {"pass-of-a", "query-of-a", "key-of-a", "key-of-b", "token-of-b", "key-of-c", "line\nof-c"}
    assert expected <= set(settings.secrets)
    assert not {"one", "8000", "--port"} & set(settings.secrets)
    assert not any(secret in repr(settings.tool_servers) for secret in expected)
    assert "key-of-a" not in repr(settings.mcp_servers)
