"""Field types and validators of settings: lists of ids, URLs, JSON objects, patterns."""

import ipaddress
import json
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import SplitResult, quote, unquote, urlsplit

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from core.config.environment import Mistakes

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


def parse_ids(value: object) -> object:
    """Parses `1, -2`; returns any other type than text unchanged."""
    if not isinstance(value, str):
        return value
    items = [item.strip() for item in value.split(",") if item.strip()]
    if not all(re.fullmatch(r"[+-]?[0-9]{1,19}", item) for item in items):
        raise ValueError("must be whole numbers, separated by commas")
    return frozenset(int(item) for item in items)


Ids = Annotated[frozenset[int], NoDecode, BeforeValidator(parse_ids)]


def parse_user_ids(value: object) -> object:
    """Parses ids of people; those of groups are negative."""
    ids = parse_ids(value)
    if isinstance(value, str) and any(each <= 0 for each in cast("frozenset[int]", ids)):
        raise ValueError("must be ids of people, which are above 0; a negative id is that of a group")
    return ids


UserIds = Annotated[frozenset[int], NoDecode, BeforeValidator(parse_user_ids)]


SPAM_LISTS = ("cas", "lols")


def parse_spam_lists(value: object) -> object:
    """Parses `cas,lols`; returns any other type than text unchanged."""
    if not isinstance(value, str):
        return value
    names = [name.strip().lower() for name in value.split(",") if name.strip()]
    if not set(names) <= set(SPAM_LISTS):
        raise ValueError("must be cas, lols or both, separated by a comma")
    return tuple(dict.fromkeys(names))


SpamLists = Annotated[tuple[str, ...], NoDecode, BeforeValidator(parse_spam_lists)]


def lower_text(value: object) -> object:
    """Returns text in lower case, so that `INFO` is accepted as `info`."""
    return value.lower() if isinstance(value, str) else value


LowerCase = BeforeValidator(lower_text)


def parse_json_object(value: object, mistakes: list[str]) -> dict[str, Any]:
    """Parses a JSON object.

    Args:
        value: JSON text, or a mapping.
        mistakes: receives a line for each duplicate key at any level, since JSON parsers silently drop one of the two.

    Raises:
        ValueError: the text is not a JSON object.
    """
    if not isinstance(value, str):
        return dict(cast("Mapping[str, Any]", value))
    duplicates: list[str] = []

    def to_dict(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        duplicates.extend(
            f"holds the key {quote_name(key)} twice" for key in dict.fromkeys(keys) if keys.count(key) > 1
        )
        return dict(items)

    def reject_constant(name: str) -> None:
        raise ValueError(f"is not JSON: {name} is not a JSON number")

    try:
        parsed: object = json.loads(value, object_pairs_hook=to_dict, parse_constant=reject_constant)
    except json.JSONDecodeError as error:
        hint = " (leave out the quotes around it)" if value[:1] in ("'", '"') else ""
        raise ValueError(f"is not JSON: {error.msg} at character {error.pos + 1}{hint}") from None
    except RecursionError:
        raise ValueError("is not readable JSON: nested too deeply") from None
    if not isinstance(parsed, dict):
        raise ValueError("must be a JSON object")  # noqa: TRY004 - pydantic turns only a ValueError into a mistake
    mistakes.extend(dict.fromkeys(duplicates))
    return cast("dict[str, Any]", parsed)


def quote_name(name: str) -> str:
    """Returns a name from a JSON value in quotes, cut to 60 characters."""
    return f'"{name[:60]}"'


ItemT = TypeVar("ItemT")


def parse_json_values(value: object, parse: Callable[[Any], ItemT]) -> dict[str, ItemT]:
    """Parses a JSON object and each value in it, and raises all mistakes together."""
    faults: list[str] = []
    parsed: dict[str, ItemT] = {}
    for key, item in parse_json_object(value, faults).items():
        try:
            parsed[key] = parse(item)
        except ValueError as error:
            faults.append(f"{quote_name(key)} {error}")
    if faults:
        raise Mistakes(faults)
    return parsed


def parse_names(value: object) -> dict[str, str]:
    """Parses a JSON object with names as values."""
    return parse_json_values(value, _parse_name)


def _parse_name(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must have a name")
    return value.strip()


Names = Annotated[dict[str, str], NoDecode, BeforeValidator(parse_names)]


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
        raise ValueError(f"has a user name or password that wants percent-encoding ({encoded})")
    return value


DatabaseUrl = BeforeValidator(parse_database_url)


def parse_headers(text: str) -> dict[str, str]:
    """Parses `name=value,name=value`, percent-encoded or not, as defined by OpenTelemetry.

    Raises:
        ValueError: the text has another form.
    """
    pairs = [pair.partition("=") for pair in text.split(",") if pair.strip()]
    if not pairs or not all(re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()) for name, _, _ in pairs):
        raise ValueError("must be name=value, separated by commas")
    if not all(value.strip() for _, _, value in pairs):
        raise ValueError("must be name=value, separated by commas")
    return {name.strip(): unquote(value.strip()) for name, _, value in pairs}


def _validate_headers(value: object) -> object:
    if isinstance(value, str):
        parse_headers(value)
    return value


Headers = BeforeValidator(_validate_headers)

_TOKEN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")


def parse_api_tokens(text: str) -> dict[str, str]:
    """Parses `name=token, name=token`.

    Raises:
        ValueError: the text has another form, or a token is short or given to two names.
    """
    tokens: dict[str, str] = {}
    for pair in text.split(","):
        name, separator, token = (part.strip() for part in pair.partition("="))
        if not separator or not _TOKEN_NAME.fullmatch(name):
            raise ValueError("must be name=token, separated by commas; a name is 1 to 32 letters, digits, _ . and -")
        if not re.fullmatch(r"[!-~]{16,}", token):
            raise ValueError(f"{quote_name(name)} must have a token of 16 characters or more, without spaces")
        if name in tokens or token in tokens.values():
            raise ValueError(f"{quote_name(name)} repeats a name or a token")
        tokens[name] = token
    return tokens


def _validate_api_tokens(value: object) -> object:
    if isinstance(value, str):
        parse_api_tokens(value)
    return value


ApiTokens = BeforeValidator(_validate_api_tokens)


def parse_directory_path(value: str | Path) -> Path:
    """Returns the path with `~` expanded."""
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("begins with ~ and an unknown user name") from None


DirectoryPath = Annotated[Path, BeforeValidator(parse_directory_path)]


_MIN_SECRETS_KEY = 32
"""Characters of one value of SECRETS_KEY."""


def parse_secret_keys(value: object) -> object:
    """Parses keys separated by commas, the newest first."""
    if not isinstance(value, str):
        return value
    keys = [key.strip() for key in value.split(",") if key.strip()]
    if any(len(key) < _MIN_SECRETS_KEY for key in keys) or not keys:
        raise ValueError(f"must be one or more random texts of {_MIN_SECRETS_KEY} characters or more, a comma apart")
    return tuple(SecretStr(key) for key in keys)


SecretKeys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(parse_secret_keys)]


def require_pattern(pattern: str, fault: str) -> BeforeValidator:
    """Returns a validator that requires text to match the whole pattern."""
    compiled = re.compile(pattern)

    def check(value: object) -> object:
        if isinstance(value, str) and not compiled.fullmatch(value):
            raise ValueError(fault)
        return value

    return BeforeValidator(check)


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
