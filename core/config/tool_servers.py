"""MCP_SERVERS: the servers of tools, their commands or URLs, and the tools that the operator allows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from pydantic import BeforeValidator

from core.config.addresses import is_local_host
from core.config.environment import Mistakes
from core.config.fields import parse_json_object, quote_name

_KEY = re.compile(r"(?i)key|token|secret|pass|auth")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,19}")
_FIELDS = frozenset({"command", "args", "env", "cwd", "url", "headers", "allowedTools", "type"})
EXAMPLE = '{"mcpServers": {"time": {"command": "mcp-server-time", "allowedTools": ["get_current_time"]}}}'


@dataclass(frozen=True, slots=True)
class ToolServer:
    """A server of tools, which is started by a command or reached by a URL.

    Args:
        environment: variables of the command beside the few that a process needs; nothing else is handed over.
        allowed: names of the tools that may be used; None for all of them.
    """

    name: str
    command: str | None = None
    arguments: tuple[str, ...] = field(default=(), repr=False)
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    directory: str | None = None
    url: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    allowed: frozenset[str] | None = None

    @property
    def is_remote(self) -> bool:
        """True if it is reached over another network than the operator's own."""
        return self.url is not None and not is_local_host(urlsplit(self.url).hostname or "")

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that must appear in no log: headers, and variables, arguments and queries that look like keys."""
        values = [value for name, value in self.environment.items() if _KEY.search(name)]
        values += [*self.headers.values(), *self._secret_arguments()]
        if self.url is not None:
            parts = urlsplit(self.url)
            values += [value for name, value in parse_qsl(parts.query) if _KEY.search(name)]
            values += [parts.password or ""]
        # Of `Bearer <key>` the key alone is secret too.
        return tuple(part for value in values if value for part in {value, value.split(" ")[-1]})

    def _secret_arguments(self) -> Iterator[str]:
        """Yields the values of options that look like keys: `--api-key=VALUE`, `--token VALUE`."""
        following = ("", *self.arguments)
        for option, argument in zip(following, self.arguments, strict=False):
            name, separator, value = argument.partition("=")
            if separator and _KEY.search(name):
                yield value
            elif (_KEY.search(option) and option.startswith("-") and "=" not in option) or "Bearer " in argument:
                yield argument


def parse_tool_servers(text: str) -> tuple[ToolServer, ...]:
    """Parses the JSON object.

    Raises:
        ValueError: lists every mistake.
    """
    faults: list[str] = []
    whole = parse_json_object(text, faults)
    entries = whole.get("mcpServers")
    if not isinstance(entries, dict) or len(whole) != 1:
        raise ValueError('must be a JSON object with the one key "mcpServers", an object from name to server')
    servers = [
        server
        for name, entry in cast("dict[str, object]", entries).items()
        if (server := _parse_server(name, entry, faults)) is not None
    ]
    if faults:
        raise Mistakes(faults)
    return tuple(servers)


def _validate(value: object) -> object:
    if isinstance(value, str):
        parse_tool_servers(value)
    return value


ToolServers = BeforeValidator(_validate)


def _parse_server(name: str, entry: object, faults: list[str]) -> ToolServer | None:
    shown = quote_name(name)
    if not _NAME.fullmatch(name):
        faults.append(f"the name {shown} must be 1 to 20 letters, digits and -, a letter first")
        return None
    if not isinstance(entry, dict):
        faults.append(f"{shown} must be an object")
        return None
    fields = cast("dict[str, Any]", entry)  # Any: JSON
    if unknown := sorted(set(fields) - _FIELDS):
        faults.append(f"{shown} has an unknown field {quote_name(unknown[0])}")
    command, url = fields.get("command"), fields.get("url")
    if (command is None) == (url is None):
        faults.append(f'{shown} must have either "command" or "url"')
    if command is not None and (not isinstance(command, str) or not command.strip() or "\x00" in command):
        faults.append(f'"command" of {shown} must be a program')
    if url is not None and not _is_web_url(url):
        faults.append(f'"url" of {shown} must begin with http:// or https://')
    texts = {name: _texts(fields.get(name), f"{name} of {shown}", faults) for name in ("args", "allowedTools")}
    environment, headers = _parse_environment(fields, shown, faults), _parse_headers(fields, shown, faults)
    directory = fields.get("cwd")
    if directory is not None and (not isinstance(directory, str) or "\x00" in directory):
        faults.append(f'"cwd" of {shown} must be a folder')
    if faults:
        return None
    return ToolServer(
        name,
        command,
        texts["args"],
        environment,
        directory,
        url,
        headers,
        frozenset(texts["allowedTools"]) if fields.get("allowedTools") is not None else None,
    )


def _parse_environment(fields: Mapping[str, Any], shown: str, faults: list[str]) -> dict[str, str]:
    environment = _table(fields.get("env"), f"env of {shown}", faults)
    if not all(name and "=" not in name and name.isprintable() for name in environment):
        faults.append(f"env of {shown} must have names without =")
    return environment


def _parse_headers(fields: Mapping[str, Any], shown: str, faults: list[str]) -> dict[str, str]:
    headers = _table(fields.get("headers"), f"headers of {shown}", faults)
    is_sendable = all(_HEADER_NAME.fullmatch(each) for each in headers)
    if not is_sendable or not all(value.isascii() and value.isprintable() for value in headers.values()):
        faults.append(f"headers of {shown} must be an object from name to text, as HTTP admits them")
    return headers


def _is_web_url(url: object) -> bool:
    try:
        return isinstance(url, str) and url.startswith(("http://", "https://")) and bool(urlsplit(url).hostname)
    except ValueError:
        return False


def _texts(value: object, what: str, faults: list[str]) -> tuple[str, ...]:
    if value is None:
        return ()
    items = cast("list[object]", value) if isinstance(value, list) else [None]
    if not all(isinstance(item, str) and "\x00" not in item for item in items):
        faults.append(f"{what} must be a list of texts")
        return ()
    return tuple(cast("list[str]", items))


def _table(value: object, what: str, faults: list[str]) -> dict[str, str]:
    if value is None:
        return {}
    items = cast("dict[str, object]", value) if isinstance(value, dict) else {"": None}
    # A certificate or a key of several lines may stand in a variable.
    if not all(isinstance(item, str) and item.replace("\n", "").isprintable() for item in items.values()):
        faults.append(f"{what} must be an object from name to text")
        return {}
    return cast("dict[str, str]", items)
