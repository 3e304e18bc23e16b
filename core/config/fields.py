"""The kinds of values that variables hold: lists of ids, URLs, JSON objects, keys."""

import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

from core.config.environment import Mistakes

_OWN_NETWORKS = tuple(
    ipaddress.ip_network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
"""Loopback (RFC 1122, RFC 4291), private (RFC 1918, RFC 4193) and link-local (RFC 3927, RFC 4291) addresses."""


def parse_ids(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
    """Parse `1, -2`; anything that is not text passes as it is."""
    if not isinstance(value, str):
        return value
    items = [item.strip() for item in value.split(",") if item.strip()]
    if not all(re.fullmatch(r"[+-]?[0-9]{1,19}", item) for item in items):
        raise ValueError("must be whole numbers with commas between them")
    return frozenset(int(item) for item in items)


Ids = Annotated[frozenset[int], NoDecode, BeforeValidator(parse_ids)]


def lowered(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
    """`INFO` is meant as `info`."""
    return value.lower() if isinstance(value, str) else value


Lowered = BeforeValidator(lowered)


def json_object(value: Any, mistakes: list[str]) -> dict[str, Any]:  # noqa: ANN401 - whatever was handed in
    """Parse a JSON object.

    Args:
        value: its text; anything else is taken for the object itself.
        mistakes: gets a line for each key that is there twice, at any level: one of the two would be lost unseen.

    Raises:
        ValueError: it is no JSON object.
    """
    if not isinstance(value, str):
        return dict(value)
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        twice.extend(f"holds the key {shown(key)} twice" for key in dict.fromkeys(keys) if keys.count(key) > 1)
        return dict(items)

    def constant(name: str) -> None:
        raise ValueError(f"is not JSON: {name} is no JSON number")

    try:
        parsed: object = json.loads(value, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        hint = " (leave out the quotes around it)" if value[:1] in ("'", '"') else ""
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}{hint}") from None
    except RecursionError:
        raise ValueError("is not JSON that can be read: nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - pydantic turns only a ValueError into a mistake
    mistakes.extend(dict.fromkeys(twice))
    return cast("dict[str, Any]", parsed)


def shown(name: str) -> str:
    """A name from inside a JSON value as a mistake tells of it."""
    return f'"{name[:60]}"'


ItemT = TypeVar("ItemT")


def each(value: Any, parse: Callable[[Any], ItemT]) -> dict[str, ItemT]:  # noqa: ANN401 - whatever was handed in
    """Parse a JSON object and every value in it, telling of all that are wrong."""
    wrong: list[str] = []
    parsed: dict[str, ItemT] = {}
    for key, item in json_object(value, wrong).items():
        try:
            parsed[key] = parse(item)
        except ValueError as error:
            wrong.append(f"{shown(key)} {error}")
    if wrong:
        raise Mistakes(wrong)
    return parsed


def names(value: Any) -> dict[str, str]:  # noqa: ANN401 - a validator sees whatever was handed in
    """Parse a JSON object of texts."""
    return each(value, _name)


def _name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must have a name")
    return value.strip()


Names = Annotated[dict[str, str], NoDecode, BeforeValidator(names)]


def split_url(url: str) -> SplitResult:
    """Split a URL that is known to be one, or find out that it is not.

    Raises:
        ValueError: no host, or a port that is no port.
    """
    try:
        parts = urlsplit(url)
        port_is_sane = parts.port != 0
    except ValueError:
        port_is_sane = False
        parts = urlsplit("")
    if not port_is_sane or not parts.hostname or re.search(r"[\s\\]", url):
        raise ValueError("is not a URL")
    return parts


def url_password(url: str) -> str | None:
    """The password in the address of a server, as it is written there."""
    _, separator, rest = url.partition("://")
    return rest.rpartition("@")[0].partition(":")[2] or None if separator else None


def web_url(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
    """Check an http or https address; it loses its trailing slash."""
    if not isinstance(value, str):
        return value
    if not value.lower().startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    parts = split_url(value)
    if parts.username is not None or parts.password is not None:
        # It is shown in status pages, where a password has no business.
        raise ValueError("must not hold a user name or password")
    if parts.query or parts.fragment:
        raise ValueError("must not hold ? or #")
    return value.rstrip("/")


WebUrl = Annotated[str, BeforeValidator(web_url)]


def store_url(schemes: Iterable[str], *, host_needed: bool = True) -> BeforeValidator:
    """A check for the address of a server, which may hold a password: the schemes that are understood."""
    known = tuple(schemes)

    def check(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
        if not isinstance(value, str):
            return value
        if value.partition("://")[0].lower() not in known or "://" not in value:
            raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in known)}")
        # Several hosts with commas between them are sentinels or nodes, and the first stands for all. The user and
        # password before them may hold anything.
        host = re.split(r"[,/?]", value.partition("://")[2].rpartition("@")[2])[0]
        if host or host_needed:
            split_url(f"//{host}")
        return value

    return BeforeValidator(check)


def parse_headers(text: str) -> dict[str, str]:
    """The headers in `name=value,name=value`, each percent-encoded or not, as OpenTelemetry writes them.

    Raises:
        ValueError: it is not of that form.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not pairs or not all(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()) for name, _, _ in pairs):
        raise ValueError("must be name=value, with commas between several")
    if not all(value.strip() for _, _, value in pairs):
        raise ValueError("must be name=value, with commas between several")
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _headers(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
    if isinstance(value, str):
        parse_headers(value)
    return value


Headers = BeforeValidator(_headers)


def directory_path(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
    """Take `~` for the home directory."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("begins with ~ and the name of nobody here") from None


DirectoryPath = Annotated[Path, BeforeValidator(directory_path)]


def shaped(pattern: str, reason: str) -> BeforeValidator:
    """A check of a text's shape, for example of a token."""
    compiled = re.compile(pattern)

    def check(value: Any) -> Any:  # noqa: ANN401 - a validator sees whatever was handed in
        if isinstance(value, str) and not compiled.fullmatch(value):
            raise ValueError(reason)
        return value

    return BeforeValidator(check)


def is_own_machine(host: str) -> bool:
    """Whether a host is this machine or one next to it, as far as its name or address tells.

    Names are not resolved: `localhost`, `*.local` (RFC 6762) and names without a dot (a container, a machine of the
    local network) are near.
    """
    host = host.lower().rstrip(".")
    address = _address(host)
    if address is not None:
        return any(address in network for network in _OWN_NETWORKS)
    return host == "localhost" or host.endswith(".local") or "." not in host


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            # The C library also takes 127.1 and 134744072, and the latter is a public address without a dot.
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
