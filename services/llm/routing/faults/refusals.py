"""Recognises refusals by their words: the key, the account, the model, a capability, the context window, loading.

Known words are a shortcut. A refusal that none of them matches is settled by evidence: another candidate is asked.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from services.llm.routing.faults.refusal_words import (
    ALWAYS,
    CODES,
    FOR_REFUSALS,
    OF_ONE_MODEL,
    Fault,
    Meaning,
    Words,
)
from services.llm.server_words import find_message


@dataclass(frozen=True, slots=True)
class KnownWords:
    """The words by which refusals are recognised; empty lists leave every refusal to the evidence."""

    codes: Mapping[str, Meaning] = field(default_factory=lambda: CODES)
    always: Words = ALWAYS
    for_refusals: Words = FOR_REFUSALS
    of_one_model: tuple[str, ...] = OF_ONE_MODEL

    def recognise(self, codes: Iterable[str | None], body: object, status: int | None) -> Meaning | None:
        """Returns the meaning of a refusal, or None if its words are unknown.

        Args:
            codes: code and type of the error.
            body: body of the response.
            status: HTTP status; None for an error object in a stream.
        """
        for code in codes:
            if code is not None and code in self.codes:
                return self.codes[code]
        text = _opening(body)
        rules = self.always if status == HTTPStatus.TOO_MANY_REQUESTS else (*self.always, *self.for_refusals)
        found = next((meaning for meaning, patterns in rules if any(re.search(each, text) for each in patterns)), None)
        is_outage = status is not None and status >= HTTPStatus.INTERNAL_SERVER_ERROR and _PASSING.search(text)
        return None if found is not None and found.fault is Fault.MISCONFIGURED and is_outage else found

    def is_of_one_model(self, body: object) -> bool:
        """Returns whether a proxy says that it passes on the failure of the one model that was asked."""
        text = _opening(body)
        return any(re.search(each, text) for each in self.of_one_model)


KNOWN_WORDS: Final = KnownWords()

_SEARCHED_LENGTH = 400
"""Characters that are searched: a message may go on with a quote of the prompt."""
_PASSING = re.compile(r"unavailable|temporar|try again|maintenance|timed out|right now")
"""Words of an outage: with a 5xx, "authentication backend unavailable" says nothing about the key."""
_NOT = re.compile(r"n['\u2019]t\b")
_OWN_NAME = re.compile(r"\b(function|tool)( name)? (['\"`])[\w.-]+\3", re.IGNORECASE)
"""The name of a tool: its words are those of the request."""
_LONG_QUOTE = re.compile(r"(?<!\w)([\"'`])(?:(?!\1).){60,}?(\1|$)", re.DOTALL)
"""A quotation that is longer than a name: it may be of the prompt, and proves nothing."""


def _opening(body: object) -> str:
    message = " ".join(find_message(body).split())[: 2 * _SEARCHED_LENGTH]
    message = _OWN_NAME.sub(r"\1", _LONG_QUOTE.sub("''", message))
    return _NOT.sub(" not", message[:_SEARCHED_LENGTH].lower())


def names_model(body: object, model: str) -> bool:
    """Returns whether the server's message names the model that was asked."""
    name = re.escape(model.lower())
    return bool(name) and re.search(rf"(?<![\w./-]){name}(?![\w-]|\.\w)", _opening(body)) is not None


_N = r"(\d[\d,_]*k?)\b"
_NO_COUNT: Final = re.compile(
    r"""
    \d{4}-\d\d-\d\d(?:[t ][\d:.z+]+)?               # an instant
    | \b(?:error|errno|code|status|http|line|column|index|id|attempt|port)\W{1,3}\d+
    | \b(?:by|in|after)\s\d[\d,.]*                  # the excess, a time
    | (?<![\w.])[a-z][\w.]*+(?:[-/][\w.]++|:(?!\d+\b)[\w.]++)+  # the name of a model
    | \brequest\s\d+ | \(2013\)                       # MiniMax's code of this refusal
    """,
    re.VERBOSE,
)
"""Numbers in a message that are no counts of tokens."""
_WINDOWS: Final = (
    rf"\bn_ctx(?:_slot)?\W{{1,3}}{_N}",
    rf"\d[\d,]* (?:tokens )?(?:\+ \d[\d,]* )?> {_N}",
    rf"context length {_N}\)",
    rf"(?:longer than|exceeds?) (?:the )?max\w*(?: model)? (?:length|len) (?:of )?{_N}",
    rf"max_(?:seq|model)_len(?:gth)? (?:of )?\(?{_N}",
    rf"maximum number of tokens allowed(?: is)?:? {_N}",
    rf"only supports? up to {_N}",
    rf"maximum: {_N}",
    rf"limit for this model is {_N}",
    rf"maximum input length of {_N}",
    rf"(?:context|prompt|sequence|input) (?:length|window|size) (?:is|of)(?: only)? {_N}",
    rf"with {_N} maximum context",
    rf"{_N}(?:[ -]tokens?)? (?:maximum )?(?:context|input|prompt)[ -](?:window|length|size|limit)",
    rf"context (?:length|window|size)\D{{0,30}}{_N}",
    rf"tokens allowed \({_N}\)",
    rf"must (?:have less than|be <=) {_N}",
    rf"length should be \[\d+, {_N}\]",
    rf"limit:? (?:of |is )?\(?{_N}",
    rf"(?:cannot|must not|should not) exceed (?:\w+ )?\(?{_N}",
    rf"no more than {_N}",
    rf"\bmax(?:imum)? (?:is|of) {_N}",
    rf"(?:maximum|max)\D{{0,40}}{_N} tokens",
)
_SENT: Final = (
    rf"\bn_keep\W{{1,3}}{_N}",
    rf"(?:token count|input tokens|prompt length) \(?{_N}",
    rf"(?:\bgot|current length is) {_N}",
    rf"prompt is too long: {_N}",
    rf"{_N} in the messages",
    rf"passed {_N} input tokens",
    rf"(?:prompt|request) contains {_N}",
    rf"(?:your )?(?:messages|prompt|input|request) (?:resulted in|has|\(){_N}",
    rf"resulted in {_N}",
    rf"requested:? (?:about )?{_N}",
    rf"input token count \({_N}\)",
    rf"keep the first {_N}",
    rf"given: {_N}",
    rf"request \({_N} tokens\)",
)
_OF_ANSWER = re.compile(r"\+|completion|output|answer|max_(new_)?tokens|characters|bytes|ответ|символ")
"""Words of a message that counts more than the tokens of a prompt."""
SMALLEST_WINDOW, LARGEST_WINDOW = 128, 20_000_000
_WINDOW_FIELDS = ("n_ctx", "max_model_len", "context_length", "max_context_length")
_SENT_FIELDS = ("n_prompt_tokens", "prompt_tokens")


def find_window(body: object) -> tuple[int | None, int | None]:
    """Returns the context window and the size of the request that a refusal names, in tokens; None if it does not."""
    message = _NO_COUNT.sub(" ", " ".join(find_message(body).split())[: 2 * _SEARCHED_LENGTH].lower())
    window = _numeric_field(body, _WINDOW_FIELDS) or _first_number(_WINDOWS, message)
    sent = _numeric_field(body, _SENT_FIELDS) or _first_number(_SENT, message)
    if window is None and not _OF_ANSWER.search(message):
        # In words of any kind: the size of the request and the limit that it exceeds.
        counts = {int(digits) for digits in re.findall(r"(?<![\w.,])\d{3,8}(?![\w,]|\.\d)", message)}
        match sorted(counts):
            case [lower, higher]:
                window, sent = lower, higher
            case _:
                pass
    if window is not None and not SMALLEST_WINDOW <= window <= LARGEST_WINDOW:
        window = None
    if sent is not None and window is not None and sent <= window:
        # The part of the prompt that is not in the way, or the tokens of the answer: proves nothing.
        sent = None
    return window, sent


def _first_number(patterns: Iterable[str], text: str) -> int | None:
    for pattern in patterns:
        found = re.search(pattern, text)
        if found is not None:
            digits = found[1].replace(",", "").replace("_", "")
            return int(digits.removesuffix("k")) * (1024 if digits.endswith("k") else 1)
    return None


def _numeric_field(body: object, names: Iterable[str]) -> int | None:
    for fields in _iter_objects(body, 3):
        for name in names:
            value = fields.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return value
    return None


def _iter_objects(body: object, depth: int) -> Iterator[Mapping[str, object]]:
    if isinstance(body, dict):
        fields = cast("Mapping[str, object]", body)
        yield fields
        if depth > 0:
            for value in fields.values():
                yield from _iter_objects(value, depth - 1)
