"""Masks secrets in texts, and renders tracebacks without exception messages that may quote user data.

Secrets are those of the configuration in any usual spelling, and strings in the form of a secret.

Everything that comes from a provider, a database or a library passes through here before a log, a chat, a table or a
trace shows it. Each pattern is linear in the text: its repetitions are possessive or begin at a word's border only.

An exception of a parser quotes the text, of a validator the value, of a database the row, all of which may hold private
messages. Only messages of known harmless kinds are kept.
"""

import base64
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import cast
from urllib.parse import quote, quote_plus

from pydantic import ValidationError

from core.errors import ConfigurationError, StartupError, StorageError
from core.shortening import shorten_line

MASK = "***"

MIN_SECRET_LENGTH = 6
"""A shorter value is not treated as a secret, since masking it would mask ordinary words."""
_FRAGMENT_LENGTH = 12
"""Characters of a secret's beginning or end that are masked on their own: some servers show a part of a key."""
_MIN_FRAGMENTED = 20
"""Length from which parts of a secret are masked."""
_CONTEXT_LENGTH = 48
"""Characters before a shortened word that are searched for a word such as `key`."""
_SAFE_MESSAGES = (
    AttributeError,
    ImportError,
    NameError,
    NotImplementedError,
    TypeError,
    # Errors of this program never quote user data.
    ConfigurationError,
    StartupError,
    StorageError,
)
"""Exceptions with messages that name identifiers of the program, never values."""
ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of secrets.

    Attributes:
        signs: lower-case strings of which a text holds one if it holds such a secret; they are found far faster.
        rare_sign: an expression for casefolded texts that matches less often, where the signs are common.
    """

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    mask: str | Callable[[re.Match[str]], str] = MASK
    rare_sign: str | None = None


_KEY_SIGNS = (
    "sk-", "aiza", "gsk_", "xai-", "pplx-", "hf_", "r8_", "nvapi-", "glpat-", "akia",
    "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_",
)  # fmt: skip
_FORMS = (
    # A bot token, which is part of the path of every Bot API URL.
    _Form(
        (":", "%3a"),
        re.compile(r"(?<!\d)\d{1,20}(?::|%3A)[A-Za-z0-9_-]{30,}", re.IGNORECASE),
        rare_sign=r"\d(?::|%3a)[\w-]{30}",
    ),
    # OpenAI, Anthropic, OpenRouter, DeepSeek (sk-), Google, Groq, xAI, Perplexity, Hugging Face, Replicate, NVIDIA,
    # GitHub, GitLab, Amazon.
    _Form(
        _KEY_SIGNS,
        re.compile(
            r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{8,}|AIza[A-Za-z0-9_-]{30,}"
            r"|(?:gsk_|xai-|pplx-|hf_|r8_|nvapi-|gh[pousr]_|github_pat_|glpat-)[A-Za-z0-9_-]{16,}"
            r"|AKIA[A-Z0-9]{16})"
        ),
    ),
    # A JSON web token.
    # A word without a dot matches too and stays as it is: else each `eyJ` in it would be searched to its end again.
    _Form(
        ("eyj",),
        re.compile(r"(?<![A-Za-z0-9])eyJ[A-Za-z0-9_-]{10,}+(\.[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*)?)?"),
        lambda match: MASK if match[1] else match[0],
    ),
    # The password of a database URL, which may hold any character but a space: up to the last @.
    _Form(
        ("://",),
        re.compile(
            r"((?:postgres(?:ql)?|rediss?|mysql|mariadb|mongodb|amqps?)(?:\+\w{1,20})?://[^\s/:@'\"]*+):[^\s]{1,200}@",
            re.IGNORECASE,
        ),
        rf"\1:{MASK}@",
    ),
    # The password of any other URL, up to the last @ before its path; and a key in the place of a user name.
    _Form(("://",), re.compile(r"(://[^\s/:@'\"]*+):[^\s/'\"]+@"), rf"\1:{MASK}@"),
    _Form(("://",), re.compile(r"://[^\s/:@'\"]{16,}+@"), f"://{MASK}@"),
    _Form(
        ("key=", "token=", "secret=", "signature=", "sig="),
        re.compile(
            r"([?&](?:key|token|access_token|refresh_token|client_secret|signature|sig)=)[^\s&'\"#]++", re.IGNORECASE
        ),
        rf"\1{MASK}",
    ),
    _Form(("bearer",), re.compile(r"\b(bearer)\s++[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE), rf"\1 {MASK}"),
    _Form(
        ("authorization",),
        re.compile(r"\b(authorization)(['\"]?\s*+[:=]\s*+['\"]?)(?:[a-z]++\s++)?[^\s'\",;]++", re.IGNORECASE),
        rf"\1\2{MASK}",
    ),
    _Form(
        ("key", "token", "passw", "secret"),
        re.compile(
            r"\b((?:api[-_ ]?key|access[-_ ]?(?:key|token)|password|passwd|secret)"
            r"(?:\s++(?:provided|given|used|is|was|of|the|request)){0,4})"
            r"(['\"]?\s*+[:=]\s*+['\"]?)(?:[^\s'\",;&.]|\.(?=[^\s])){4,}",
            re.IGNORECASE,
        ),
        rf"\1\2{MASK}",
    ),
)

_SHORTENED = re.compile(r"[A-Za-z0-9_*•●…-]++(?:\.{2,}+[A-Za-z0-9_*•●…-]++)*+(?:\.{3,}+)?")
_STARS = re.compile(r"\*{3,}|[•●]{3,}|[A-Za-z0-9_-]\*{2}[A-Za-z0-9_-]")
_GAP = re.compile(r"\.{2,}|…")
_ABOUT_A_KEY = re.compile(r"key|token|secret|credential|bearer|password", re.IGNORECASE)
_KEY_BEGINS = re.compile(r"(?:sk|gsk|pk|xai|AIza|pplx|hf|r8|nvapi|key)[-_.…*]")
_SUSPECT = (
    r"\*\*|[•●]{3}|\.\.|…",
    *(form.rare_sign or "|".join(map(re.escape, form.signs)) for form in _FORMS),
)
"""Expressions of which a casefolded text matches one if it holds a secret in any form, or a shortened key."""


def mask_secret_forms(text: str) -> str:
    """Returns the text with strings in the form of a secret masked, shortened keys such as `ab***yz` included."""
    return _mask_forms(_mask_shortened_keys(text))


def _mask_forms(text: str) -> str:
    folded = text.casefold()
    for form in _FORMS:
        if any(map(folded.__contains__, form.signs)):
            text = form.pattern.sub(form.mask, text)
    return text


def _mask_shortened_keys(text: str) -> str:
    if _STARS.search(text) or _GAP.search(text):
        return _SHORTENED.sub(_mask_shortened, text)
    return text


def _mask_shortened(match: re.Match[str]) -> str:
    word = match.group()
    if _STARS.search(word):
        return MASK
    if not _GAP.search(word.rstrip(".…")) and not _KEY_BEGINS.match(word):
        return word
    before = match.string[max(match.start() - _CONTEXT_LENGTH, 0) : match.start()]
    is_key = _KEY_BEGINS.match(word) is not None or _ABOUT_A_KEY.search(before) is not None
    return MASK if is_key and _GAP.search(word) else word


class SecretMasker:
    """Masks secrets of the configuration and strings in their form.

    Args:
        secrets: the known values, as listed by `Settings.secrets`.

    Attributes:
        signs: casefolded strings of which a text holds one if it holds a known secret; they are found far faster.
        suspect: matches a casefolded text if `text` may change it. Faster than `text` for one line, slower for pages.
    """

    signs: tuple[str, ...]
    suspect: re.Pattern[str]

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets: frozenset[str] = frozenset()
        self.add_secrets(secrets)

    def add_secrets(self, secrets: Iterable[str]) -> None:
        """Masks these values too from now on."""
        self._secrets |= {secret for secret in secrets if len(secret) >= MIN_SECRET_LENGTH}
        known = sorted(self._secrets)
        spellings = sorted({spelling for secret in known for spelling in _spellings(secret)}, key=len, reverse=True)
        fragments = [fragment for secret in known for fragment in _fragments(secret)]
        patterns = [re.escape(spelling) for spelling in spellings]
        patterns += [rf"{re.escape(fragment)}[A-Za-z0-9_*•●…-]*+" for fragment in fragments]
        self._known = re.compile("|".join(patterns) or r"(?!)", re.IGNORECASE)
        self.signs = tuple({each.casefold() for each in (*spellings, *fragments)})
        self.suspect = re.compile("|".join([*_SUSPECT, *map(re.escape, self.signs)]))

    def known(self, text: str) -> str:
        """Returns the text with the secrets of the configuration masked, and nothing else.

        Look for one of `signs` first: most texts hold none, and are searched far faster for them.
        """
        return self._known.sub(MASK, text)

    def text(self, text: str) -> str:
        """Returns the text with known secrets, and strings of their form, masked."""
        # Shortened keys first: the masks of the others look like one.
        text = _mask_shortened_keys(text)
        if any(map(text.casefold().__contains__, self.signs)):
            text = self.known(text)
        return _mask_forms(text)

    def excerpt(self, text: str, length: int) -> str:
        """Returns one line of at most `length` characters of the text, masked before it is cut."""
        return shorten_line(self.text(text), length)


def _spellings(secret: str) -> set[str]:
    """Returns a secret as it stands in URLs, in JSON and in base64."""
    found = {secret, secret.strip(), quote(secret, safe=""), quote(secret), quote_plus(secret)}
    found |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    found.add(base64.b64encode(secret.encode(errors="surrogateescape")).decode().rstrip("="))
    return {each for each in found if len(each) >= MIN_SECRET_LENGTH}


def _fragments(secret: str) -> list[str]:
    """Returns the beginning and the end of a secret; of an address none, since its parts are words."""
    if len(secret) < _MIN_FRAGMENTED or "://" in secret or " " in secret:
        return []
    return [secret[:_FRAGMENT_LENGTH], secret[-_FRAGMENT_LENGTH:]]


def render_traceback(exc_info: ExcInfo) -> str:
    """Returns the traceback of an exception and its causes in the order and format of Python."""
    return "\n".join(_format_chain(exc_info[1], set()))


def describe_error(error: BaseException) -> str:
    """Returns the qualified type of an exception, with its message if that is safe."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    message = _safe_message(error)
    return f"{name}: {message}" if message else name


def _safe_message(error: BaseException) -> str:
    match error:
        case ValidationError():
            details = error.errors(include_url=False, include_context=False, include_input=False)
            return f"{error.title}: " + ", ".join(detail["type"] for detail in details)
        case OSError(strerror=str(message)):
            return message
        case _ if isinstance(error, _SAFE_MESSAGES):
            return str(error)
        case _:
            return ""


def _format_chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and id(cause) not in seen:
        yield from _format_chain(cause, seen)
        yield ""
        yield (
            "The above exception was the direct cause of the following exception:"
            if error.__cause__ is not None
            else "During handling of the above exception, another exception occurred:"
        )
        yield ""
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
        for entry in traceback.format_tb(error.__traceback__):
            yield entry.rstrip("\n")
    yield describe_error(error)
    if isinstance(error, BaseExceptionGroup):
        for member in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            if id(member) not in seen:
                yield from (f"  | {line}" for part in _format_chain(member, seen) for line in part.split("\n"))
