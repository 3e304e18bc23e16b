"""Field types of URLs, hosts and connection strings."""

import ipaddress
import re
import socket
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import SplitResult, quote, urlsplit

from pydantic import BeforeValidator

_LOCAL_NETWORKS = tuple(
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


def split_url(url: str) -> SplitResult:
    """Splits a URL.

    Raises:
        ValueError: the host is missing or the port is invalid.
    """
    try:
        parts = urlsplit(url)
        is_port_valid = parts.port != 0
    except ValueError:
        is_port_valid = False
        parts = urlsplit("")
    if not is_port_valid or not parts.hostname or re.search(r"[\s\\]", url):
        raise ValueError("is not a URL")
    return parts


def url_password(url: str) -> str | None:
    """Returns the password of a server URL, still percent-encoded."""
    _, separator, rest = url.partition("://")
    return rest.rpartition("@")[0].partition(":")[2] or None if separator else None


def parse_web_url(value: object) -> object:
    """Validates an http or https URL and removes its trailing slash."""
    if not isinstance(value, str):
        return value
    if not value.lower().startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    parts = split_url(value)
    if parts.username is not None or parts.password is not None:
        # The URL is displayed on status pages.
        raise ValueError("must not hold a user name or password")
    if parts.query or parts.fragment:
        raise ValueError("must not hold ? or #")
    return value.rstrip("/")


WebUrl = Annotated[str, BeforeValidator(parse_web_url)]


def parse_origin(value: object) -> object:
    """Validates the address of a whole server, below which the program has its own paths."""
    url = parse_web_url(value)
    if not isinstance(url, str):
        return url
    parts = split_url(url)
    if parts.path:
        raise ValueError(f"must end before the path, without {parts.path}")
    return f"{parts.scheme.lower()}://{parts.netloc.lower()}"


Origin = Annotated[str, BeforeValidator(parse_origin)]

_OPERATION = re.compile(r"/(chat/completions|completions|responses|embeddings|messages|api/chat|api/generate)$")
"""Paths of single operations, which people copy from an example of curl."""


def parse_base_url(value: object) -> object:
    """Validates the base URL of a provider, below which each operation has its own path."""
    url = parse_web_url(value)
    operation = _OPERATION.search(url) if isinstance(url, str) else None
    if operation is not None:
        raise ValueError(f"must not end in {operation[0]}, which is appended to it")
    return url


BaseUrl = Annotated[str, BeforeValidator(parse_base_url)]


def parse_listen_host(value: object) -> object:
    """Validates the name or address of a network interface."""
    if not isinstance(value, str):
        return value
    try:
        ipaddress.ip_address(value.partition("%")[0])
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value):
            raise ValueError("must be an address or a host name alone, without http:// and port") from None
    return value


ListenHost = Annotated[str, BeforeValidator(parse_listen_host)]


def require_url(schemes: Iterable[str], *, host_needed: bool = True) -> BeforeValidator:
    """Returns a validator of server URLs with one of these schemes. They may hold a password."""
    known = tuple(schemes)

    def check(value: object) -> object:
        if not isinstance(value, str):
            return value
        if value.partition("://")[0].lower() not in known or "://" not in value:
            raise ValueError(f"must begin with {' or '.join(f'{scheme}://' for scheme in known)}")
        # Several hosts are sentinels or cluster nodes. The user and password before them may hold any character.
        for host in re.split(r"[/?]", value.partition("://")[2].rpartition("@")[2])[0].split(","):
            if host or host_needed:
                split_url(f"//{host}")
        return value

    return BeforeValidator(check)


def parse_redis_url(value: object) -> object:
    """Requires that a database is named by its number, which redis-py ignores otherwise."""
    if not isinstance(value, str):
        return value
    scheme, _, rest = value.partition("://")
    kind = scheme.lower().partition("+")[2]
    service, _, database = rest.rpartition("@")[2].partition("?")[0].partition("/")[2].strip("/").partition("/")
    number = database if kind == "sentinel" else service
    if number and not number.isdecimal():
        raise ValueError("must name its database by a number")
    if kind == "cluster" and number.strip("0"):
        raise ValueError("must name no database: a cluster has the one of number 0")
    return value


RedisUrl = BeforeValidator(parse_redis_url)


def parse_database_url(value: object) -> object:
    """Requires a file for SQLite, and else credentials in which the delimiters of a URL are percent-encoded."""
    if not isinstance(value, str):
        return value
    scheme, _, rest = value.partition("://")
    if scheme.lower().startswith("sqlite") and rest.partition("?")[0].strip("/") in {"", ":memory:"}:
        raise ValueError("must name a file, as in sqlite:///understudy.db")
    before_query = rest.partition("?")[0]
    # A ? belongs to the password if no host, and no @, comes before it: `user:pa?ss@host`.
    is_query = "@" in before_query or "/" in before_query
    credentials = (before_query if is_query else rest).rpartition("@")[0]
    if scheme.lower().startswith("sqlite") or not credentials:
        return value
    user, _, password = credentials.partition(":")
    wrong = [sign for sign in "@/:?#[] " if sign in password or (sign != ":" and sign in user)]
    if re.search(r"%(?![0-9A-Fa-f]{2})", credentials):
        wrong.append("%")
    if wrong:
        encoded = ", ".join(f"{sign} as {quote(sign, safe='')}" for sign in wrong)
        raise ValueError(f"must have its user name and password percent-encoded ({encoded})")
    return value


DatabaseUrl = BeforeValidator(parse_database_url)


def is_local_host(host: str) -> bool:
    """Returns whether a host is this machine or in its local network, judged by its name or address.

    Names are not resolved: `localhost`, `*.local` (RFC 6762) and names without a dot (a container, a host of the local
    network) count as local.
    """
    host = host.lower().rstrip(".")
    address = _parse_address(host)
    if address is not None:
        return any(address in network for network in _LOCAL_NETWORKS)
    return host == "localhost" or host.endswith(".local") or "." not in host


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        try:
            # The C library also accepts 127.1 and 134744072; the latter is a public address without a dot.
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except (OSError, UnicodeError):
            return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
