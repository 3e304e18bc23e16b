"""Localised texts from the Fluent files under `locales`."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from fluent.runtime import FluentBundle
    from fluent.syntax.ast import Resource

log = structlog.get_logger()

_LOCALES = Path(__file__).parent / "locales"
DEFAULT_LANGUAGE = "en"
"""The fallback for languages without a translation."""
MAX_LABELS = 2000
"""Texts kept formatted; language tags come from clients."""
_ENTRY = re.compile(r"^(?=-?[a-zA-Z])", re.MULTILINE)
"""Start of each text in a Fluent file; the lines that continue a text are indented."""


class Texts:
    """Formats the texts of all languages by key.

    A text is parsed on first use, which takes 0.4 ms, and the Fluent library is imported with the first one.

    Args:
        strict: raise on a missing key or argument. Off by default: a user is better served by an incomplete text
            than by none.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._languages: dict[str, _Language] = {}
        self.label = lru_cache(MAX_LABELS)(self.get)
        """`get` for a text without variables, which is formatted once for each language tag."""

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages that have a translation."""
        return tuple(sorted(path.parent.name for path in _LOCALES.glob("*/main.ftl")))

    def get(self, key: str, language: str | None = None, /, **args: str | float) -> str:
        """Returns a formatted text; a missing key is logged and returned itself.

        Args:
            key: identifier of the text.
            language: an IETF tag such as `ru-RU`; a missing text falls back to `ru`, then to English.
            args: values of the text's variables.

        Raises:
            LookupError: in strict mode, if no language has the text or an argument is missing.
        """
        for candidate in self._chain(language):
            formatted = self._language(candidate).format(key, args)
            if formatted is None:
                continue
            text, errors = formatted
            if errors:
                self._report("text.incomplete", key, "; ".join(str(error) for error in errors))
            return text
        self._report("text.missing", key, "no language has it")
        return key

    def _chain(self, language: str | None) -> list[str]:
        tags: list[str] = []
        parts = re.split(r"[-_]", language) if language else []
        while parts:
            tags.append("-".join(parts).lower())
            parts.pop()
        tags.append(DEFAULT_LANGUAGE)
        return [known for tag in dict.fromkeys(tags) for known in self.languages if known.lower() == tag]

    def _language(self, tag: str) -> "_Language":
        language = self._languages.get(tag)
        if language is None:
            language = self._languages[tag] = _read(tag)
        return language

    def _report(self, event: str, key: str, reason: str) -> None:
        if self._strict:
            raise LookupError(f"{key}: {reason}")
        log.error(event, key=key, reason=reason)


class _Language:
    """The texts of a language, each parsed on first use; a text refers to no other one."""

    def __init__(self, bundle: "FluentBundle", parse: "Callable[[str], Resource]", source: str) -> None:
        self._bundle = bundle
        self._parse = parse
        self._sources = {re.split(r"[\s=]", entry, maxsplit=1)[0]: entry for entry in _ENTRY.split(source)}

    def format(self, key: str, args: Mapping[str, str | float]) -> tuple[str, Sequence[Exception]] | None:
        """Returns a formatted text and the errors in it; None if the language does not have it."""
        if (source := self._sources.pop(key, None)) is not None:
            self._bundle.add_resource(self._parse(source))
        if not self._bundle.has_message(key) or (value := self._bundle.get_message(key).value) is None:
            return None
        text, errors = self._bundle.format_pattern(value, dict(args))
        return str(text), errors


def _read(language: str) -> _Language:
    from fluent.runtime import FluentBundle, FluentResource

    # Isolation marks are invisible characters around variables: some terminals show them as boxes, and they count
    # towards Telegram's message limit.
    bundle = FluentBundle([language], use_isolating=False)
    return _Language(bundle, FluentResource, (_LOCALES / language / "main.ftl").read_text(encoding="utf-8"))
