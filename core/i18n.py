"""Texts for people, in their language, from the Fluent files under `locales`."""

import re
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from fluent.runtime import FluentBundle

log = structlog.get_logger()

_LOCALES = Path(__file__).parent / "locales"
LAST_RESORT = "en"
"""What is spoken to those whose language there are no texts in."""


class Texts:
    """Every text that the program says, by key.

    A language is parsed when the first text of it is asked for, and the library itself is imported with it: together
    a tenth of a second that a start does not wait for.

    Args:
        strict: raise for a key that is not there and for a missing argument. A user is better served by an odd text
            than by none, so only tests ask for this.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self._strict = strict
        self._bundles: dict[str, FluentBundle] = {}

    @cached_property
    def languages(self) -> tuple[str, ...]:
        """The languages that there are texts in."""
        return tuple(sorted(path.parent.name for path in _LOCALES.glob("*/main.ftl")))

    def get(self, key: str, language: str | None = None, /, **args: str | float) -> str:
        """Say something.

        Args:
            key: which text.
            language: an IETF tag such as `ru-RU`; `ru` and then English stand in for what is not there.
            args: what the text's variables are.

        Raises:
            LookupError: strict, and no language has that text, or it lacks an argument.
        """
        for candidate in self._chain(language):
            bundle = self._bundle(candidate)
            message = bundle.get_message(key) if bundle.has_message(key) else None
            if message is None or message.value is None:
                continue
            text, errors = bundle.format_pattern(message.value, args)
            if errors:
                self._complain("text.incomplete", key, "; ".join(str(error) for error in errors))
            return str(text)
        self._complain("text.missing", key, "no language has it")
        return key

    def _chain(self, language: str | None) -> list[str]:
        tags: list[str] = []
        parts = re.split(r"[-_]", language) if language else []
        while parts:
            tags.append("-".join(parts).lower())
            parts.pop()
        tags.append(LAST_RESORT)
        return [known for tag in dict.fromkeys(tags) for known in self.languages if known.lower() == tag]

    def _bundle(self, language: str) -> "FluentBundle":
        bundle = self._bundles.get(language)
        if bundle is None:
            bundle = self._bundles[language] = _parse(language)
        return bundle

    def _complain(self, event: str, key: str, why: str) -> None:
        if self._strict:
            raise LookupError(f"{key}: {why}")
        log.error(event, key=key, why=why)


def _parse(language: str) -> "FluentBundle":
    from fluent.runtime import FluentBundle, FluentResource  # noqa: PLC0415 - costs 130 ms, see Texts

    # Isolation marks around variables are invisible characters that show as boxes in some terminals, and Telegram
    # would count them.
    bundle = FluentBundle([language], use_isolating=False)
    bundle.add_resource(FluentResource((_LOCALES / language / "main.ftl").read_text(encoding="utf-8")))
    return bundle
