"""A server's own words about an error, for operators: found in its body, without keys, cut at 300 characters.

A message may quote the prompt where the request itself is at fault. It is then shown only where the prompt was ours: in
`check`, in `/provider test` and in probes. Elsewhere quotations are masked: every word that the prompt holds too, whole
or cut off, and escaped characters.
"""

import base64
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Final, cast
from unicodedata import normalize

from pydantic import SecretStr
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRequestRejectedError,
)
from pydantic_ai.messages import ModelMessage, TextContent

from core.observability.redaction import MASK, mask_secret_forms

MAX_LENGTH: Final = 300
QUOTING_STATUSES: Final = frozenset({400, 403, 413, 422})
"""Statuses of requests that are at fault, or that a filter refused."""

_MESSAGE_FIELDS = (
    "error", "message", "detail", "msg", "errors", "error_description", "error_msg", "error_message", "errmsg",
    "description", "title",
)  # fmt: skip
"""In this order: `{"code": "...", "error": "..."}` of some servers, `{"error": {"message": "..."}}` of most."""
_MAX_DEPTH = 6
_MIN_KEY_LENGTH = 4
"""A shorter key is replaced as a whole word only."""
_MIN_PART_LENGTH = 6
"""Characters of a key that a message may repeat in place of the whole."""

_MAX_READ: Final = 4096
"""Characters of a message, or of a page, that are read: their patterns are not all linear."""

_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TOKEN = re.compile(r"[A-Za-z0-9_~+/=.*…-]+")
_SECRETS_BY_FORM = re.compile(
    r"""
    \b(?:sk|pk|rk|key|xai|csk|nvapi|hf|r8|fw|pplx)[-_][\w*.-]{6,}  # OpenAI, Anthropic, xAI, Cerebras, NVIDIA and others
    | \bgsk_\w{6,} | \bAIza[\w-]{6,}                               # Groq, Google
    | \beyJ[\w-]+\.[\w.-]+                                         # a JSON web token
    | (?<![\w~+/=-])[\w~+/=-]*+\*{2,}[\w~+/=*-]*                   # masked by the server, with the rest in view
    | \b(?=\w*[0-9])(?=\w*[A-Za-z])[A-Za-z0-9_]{24,}\b             # no prefix: Mistral's, Azure's
    """,
    re.VERBOSE,
)
_BEARER = re.compile(r"\b(bearer|basic)\s+(?!token\b|auth|realm\b|key\b)[^\s\"',;]{4,}", re.IGNORECASE)


def find_server_words(
    error: BaseException, key: SecretStr | None, *, is_own_prompt: bool, secrets: Iterable[str] = ()
) -> str | None:
    """Returns the server's message about a failed request; None if it has none, or may quote a user's prompt.

    Args:
        error: the exception of a request to a model.
        key: the key of the request.
        is_own_prompt: whether the prompt was ours, so that a quote of it reveals nothing.
        secrets: further values to mask.
    """
    if not isinstance(error, ModelAPIError) or (_may_quote_prompt(error) and not is_own_prompt):
        return None
    known = [key.get_secret_value()] if key is not None else []
    return clean_words(find_message(error.body), [*known, *secrets])


def _may_quote_prompt(error: ModelAPIError) -> bool:
    if isinstance(error, ModelAuthenticationError | ModelNotFoundError | ModelQuotaExceededError):
        # About the key, the model or the account, at any status.
        return False
    if isinstance(error, ModelHTTPError):
        return error.status_code in QUOTING_STATUSES
    return isinstance(error, ModelRequestRejectedError)


def clean_words(text: str, secrets: Iterable[str]) -> str | None:
    """Returns a server's text in one line, without secrets, of at most `MAX_LENGTH` characters; None if it is empty."""
    # Masked before the cut, so that no part of a key is left at the end.
    words = mask_secrets(_beginning(" ".join(text.split())), secrets)
    if len(words) > MAX_LENGTH:
        words = words[: MAX_LENGTH - 1].rstrip() + "…"
    return words or None


def _beginning(text: str) -> str:
    """Returns as much of a text as is read, without a word that this would cut: it may be a part of a key."""
    if len(text) <= _MAX_READ:
        return text
    beginning, gap, _ = text[:_MAX_READ].rpartition(" ")
    return beginning if gap else text[:_MAX_READ]


def find_message(body: object) -> str:
    """Returns the message in the body of an error, in any server's layout; empty if there is none.

    Args:
        body: bytes, text, or decoded JSON. Of an HTML page, its title or its text is returned.
    """
    if isinstance(body, bytes):
        body = body.decode(errors="replace")
    if isinstance(body, str):
        text = body.strip()
        if not text.startswith(("{", "[", '"')):
            return _strip_html(text) if text.startswith("<") else text
        with suppress(ValueError, RecursionError):
            body = json.loads(text)
    return _search(body, _MAX_DEPTH)


def _search(body: object, depth: int) -> str:
    match body:
        case str():
            text = body.strip()
            # Gateways put the body of the server behind them into a message as text.
            if depth > 0 and text.startswith("{"):
                with suppress(ValueError, RecursionError):
                    return _search(json.loads(text), depth - 1) or text
            return text
        case dict() if depth > 0:
            fields = cast("Mapping[str, object]", body)
            found = next(filter(None, (_search(fields.get(name), depth - 1) for name in _MESSAGE_FIELDS)), "")
            place = fields.get("loc")
            if found and isinstance(place, list | tuple):
                # FastAPI's: the field that the message is about.
                names = [str(name) for name in cast("list[object]", place) if name != "body"]
                found = f"{'.'.join(names)}: {found}" if names else found
            metadata = fields.get("metadata")
            # OpenRouter's message is "Provider returned error", and the provider's own is in here.
            raw = cast("Mapping[str, object]", metadata).get("raw") if isinstance(metadata, dict) else None
            inner = _search(raw, depth - 1)
            return f"{found}: {inner}" if found and inner else found or inner
        case list() if depth > 0:
            items = cast("list[object]", body)
            return "; ".join(filter(None, (_search(item, depth - 1) for item in items[:3])))
        case _:
            return ""


def _strip_html(page: str) -> str:
    page = page[:_MAX_READ]
    title = _TITLE.search(page)
    return (title[1] if title else "").strip() or _TAG.sub(" ", page)


def mask_secrets(text: str, secrets: Iterable[str]) -> str:
    """Returns the text without these secrets, parts of them, and strings that look like a key or a bearer token."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        if len(secret) < _MIN_KEY_LENGTH:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", MASK, text)
            continue
        text = _mask_spelled(text.replace(secret, MASK), secret)
        text = _TOKEN.sub(lambda match, secret=secret: _mask_part(match[0], secret), text)
    text = _BEARER.sub(rf"\1 {MASK}", text)
    return _SECRETS_BY_FORM.sub(MASK, mask_secret_forms(text))


_SIGN = re.compile(
    r"""
    &\#x([0-9a-f]{1,6});? | &\#([0-9]{1,7});?                             # of HTML
    | \\u\{?([0-9a-f]{4,6})\}? | \\x([0-9a-f]{2}) | %(?:25)*([0-9a-f]{2})  # of JSON, of Python, of an URL
    | \\([0-3][0-7]{2})                                                    # of C
    | (.)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
"""One character of a text, as itself or in an escaped form."""
_GRAM = 8
"""Letters and digits of a key, in their order, that prove a repetition of it in another spelling."""


def _mask_spelled(text: str, secret: str) -> str:
    """Returns a text without a key that is in another case, escaped, encoded, reversed, or broken up."""
    grams = {needle[at : at + _GRAM] for needle in _spellings(secret) for at in range(len(needle) - _GRAM + 1)}
    if not grams:
        return text
    letters: list[str] = []
    spans: list[tuple[int, int]] = []
    for match in _SIGN.finditer(text):
        for letter in _skeleton(_read_sign(match)):
            letters.append(letter)
            spans.append(match.span())
    skeleton = "".join(letters)
    masked: list[str] = []
    done, at = 0, 0
    while at <= len(skeleton) - _GRAM:
        if skeleton[at : at + _GRAM] not in grams:
            at += 1
            continue
        begin = at
        while skeleton[at : at + _GRAM] in grams:
            at += 1
        at += _GRAM - 1
        masked += [text[done : spans[begin][0]], MASK]
        done = spans[at - 1][1]
    return "".join([*masked, text[done:]])


def _read_sign(match: re.Match[str]) -> str:
    hexadecimal, decimal = match[1] or match[3] or match[4] or match[5], match[2]
    if not (hexadecimal or decimal or match[6]):
        return match[7]
    code = int(hexadecimal, 16) if hexadecimal else int(decimal) if decimal else int(match[6], 8)
    return chr(code) if code <= sys.maxunicode else ""


def _skeleton(text: str) -> str:
    """Returns the letters and digits of a text, in one case and one width."""
    return "".join(filter(str.isalnum, normalize("NFKC", text).casefold()))


@lru_cache(maxsize=64)
def _spellings(secret: str) -> tuple[str, ...]:
    """Returns the skeletons of a key: plain, reversed, in hexadecimal, as numbers, and as a part of a base64 text."""
    key = secret.encode(errors="surrogateescape")
    # The first and last letters also encode bits of the bytes beside the key.
    encoded = [
        base64.b64encode(b"\0" * before + key).decode()[-(-before * 4 // 3) :].rstrip("=")[:-1] for before in range(3)
    ]
    listed = "".join(f"0x{byte:02x}" for byte in key)
    return tuple(map(_skeleton, (secret, secret[::-1], key.hex(), listed, "".join(map(str, key)), *encoded)))


_GAP = re.compile(r"(?P<begin>.*?)(?:\.{2,}|…|\*+|[xX#•●]{4,})+(?P<end>.*)", re.DOTALL)


def _mask_part(token: str, secret: str) -> str:
    """Returns a mask in place of a part of a key: its beginning and end around dots or stars, or a stretch of it."""
    if token == MASK:
        return token
    shown = _GAP.fullmatch(token)
    if shown and shown["begin"] + shown["end"]:
        begin, end = shown["begin"], shown["end"].rstrip(".")
        if begin + end and secret.startswith(begin) and secret.endswith(end):
            return MASK
    bare = token.strip(".…*")
    return token.replace(bare, MASK) if len(bare) >= _MIN_PART_LENGTH and bare in secret else token


QUOTE_MASK: Final = "…"
_WORD = re.compile(r"\w+")
_ESCAPED = re.compile(r"(\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2})+")
_SHORTEST_PART = 4
"""Characters from which on a word counts as cut off from a longer one."""


def mask_quotes(words: str, messages: Iterable[ModelMessage]) -> str:
    """Returns a server's words with a mask in place of each word that is in the messages; short words are kept."""
    said = {word.lower() for text in _iter_texts(messages) for word in _WORD.findall(text)}

    def mask(match: re.Match[str]) -> str:
        word = match[0].lower()
        if len(word) < _SHORTEST_PART and word.isalpha() and word.isascii():
            return match[0]
        is_part = len(word) >= _SHORTEST_PART and any(word in other for other in said)
        return QUOTE_MASK if word in said or is_part else match[0]

    masked = _WORD.sub(mask, _ESCAPED.sub(QUOTE_MASK, words))
    return re.sub(rf"{QUOTE_MASK}(\W{{0,3}}{QUOTE_MASK})+", QUOTE_MASK, masked)


def _iter_texts(messages: Iterable[ModelMessage]) -> Iterator[str]:
    for message in messages:
        for part in message.parts:
            content: object = getattr(part, "content", None)
            args: object = getattr(part, "args", None)
            for item in (content, args):
                if isinstance(item, str):
                    yield item
                elif isinstance(item, list):
                    pieces = cast("list[object]", item)
                    yield from (str(each.content if isinstance(each, TextContent) else each) for each in pieces)
                elif item is not None:
                    yield str(item)
