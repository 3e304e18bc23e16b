"""Field types and validators of settings: lists of ids, JSON objects, tokens, patterns."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast
from urllib.parse import unquote

from pydantic import BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from core.config.environment import Mistakes


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
