"""Masks secrets in texts: those of the configuration in any usual spelling, and strings in the form of a secret.

Everything that comes from a provider, a database or a library passes through here before a log, a chat, a table or a
trace shows it. Each pattern is linear in the text: its repetitions are possessive or begin at a word's border only.
"""

import base64
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

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


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of secrets.

    Attributes:
        signs: lower-case strings of which a text holds one if it holds such a secret; they are found far faster.
    """

    signs: tuple[str, ...]
    pattern: re.Pattern[str]
    mask: str | Callable[[re.Match[str]], str] = MASK


_FORMS = (
    # A bot token, which is part of the path of every Bot API URL.
    _Form((":", "%3a"), re.compile(r"(?<!\d)\d{1,20}(?::|%3A)[A-Za-z0-9_-]{30,}", re.IGNORECASE)),
    # OpenAI, Anthropic, OpenRouter, DeepSeek (sk-), Google, Groq, xAI, Perplexity, Hugging Face, Replicate, NVIDIA,
    # GitHub, GitLab, Amazon.
    _Form(
        ("sk-", "aiza", "gsk_", "xai-", "pplx-", "hf_", "r8_", "nvapi-", "gh", "glpat-", "akia"),
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


def mask_secret_forms(text: str) -> str:
    """Returns the text with strings in the form of a secret masked, shortened keys such as `ab***yz` included."""
    return _mask_forms(_mask_shortened_keys(text))


def _mask_forms(text: str) -> str:
    folded = text.casefold()
    for form in _FORMS:
        if any(sign in folded for sign in form.signs):
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
    """

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
        self._signs = tuple({each.casefold() for each in (*spellings, *fragments)})
        self._known = re.compile("|".join(patterns), re.IGNORECASE)

    def known(self, text: str) -> str:
        """Returns the text with the secrets of the configuration masked, and nothing else."""
        folded = text.casefold()
        return self._known.sub(MASK, text) if any(sign in folded for sign in self._signs) else text

    def text(self, text: str) -> str:
        """Returns the text with known secrets, and strings of their form, masked."""
        # Shortened keys first: the masks of the others look like one.
        return _mask_forms(self.known(_mask_shortened_keys(text)))

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
