"""Localised texts from the Fluent files under `locales`."""

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from fluent.runtime import FluentBundle

log = structlog.get_logger()

_LOCALES = Path(__file__).parent / "locales"
DEFAULT_LANGUAGE = "en"
"""The fallback for languages without a translation."""


class Texts:
    """Formats the texts of all languages by key.

    A language is parsed on first use, and the Fluent library is imported with it: together 0.1 s that the start does
    not pay for.

    Args:
        strict: raise on a missing key or argument. Meant for tests: a user is better served by an incomplete text
            than by none.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._bundles: dict[str, FluentBundle] = {}

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages that have a translation."""
        return tuple(sorted(path.parent.name for path in _LOCALES.glob("*/main.ftl")))

    def get(self, key: str, language: str | None = None, /, **args: str | float) -> str:
        """Return a formatted text; a missing key is logged and returned itself.

        Args:
            key: identifier of the text.
            language: an IETF tag such as `ru-RU`; a missing text falls back to `ru`, then to English.
            args: values of the text's variables.

        Raises:
            LookupError: in strict mode, if no language has the text or an argument is missing.
        """
        for candidate in self._chain(language):
            bundle = self._bundle(candidate)
            message = bundle.get_message(key) if bundle.has_message(key) else None
            if message is None or message.value is None:
                continue
            text, errors = bundle.format_pattern(message.value, args)
            if errors:
                self._report("text.incomplete", key, "; ".join(str(error) for error in errors))
            return str(text)
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

    def _bundle(self, language: str) -> "FluentBundle":
        bundle = self._bundles.get(language)
        if bundle is None:
            bundle = self._bundles[language] = _parse(language)
        return bundle

    def _report(self, event: str, key: str, reason: str) -> None:
        if self._strict:
            raise LookupError(f"{key}: {reason}")
        log.error(event, key=key, reason=reason)


def _parse(language: str) -> "FluentBundle":
    from fluent.runtime import FluentBundle, FluentResource  # noqa: PLC0415 - costs 130 ms, see Texts

    # Isolation marks are invisible characters around variables: some terminals show them as boxes, and they count
    # towards Telegram's message limit.
    bundle = FluentBundle([language], use_isolating=False)
    bundle.add_resource(FluentResource((_LOCALES / language / "main.ftl").read_text(encoding="utf-8")))
    return bundle
