"""Where settings come from, and what a mistake in them reads like.

A mistake is one line: the variable, what is wrong, an example. It never quotes the value, since a secret may have been
pasted into the wrong variable.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict


class Mistakes(ValueError):
    """Several things wrong with one variable, where a plain `ValueError` tells of one."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(lines))


class VariableSet(BaseSettings):
    """Variables that are read together.

    Nothing is read implicitly: `checked` takes them from what `read_variables` found, and an instance that a test
    builds with keyword arguments depends on nothing around it.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings fixes the signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave the process environment alone."""
        return (init_settings,)

    @classmethod
    def names(cls, prefix: str = "") -> tuple[str, ...]:
        """The variables that the fields are read from."""
        return tuple(prefix + field.upper() for field in cls.model_fields)


@dataclass(frozen=True, slots=True)
class Variables:
    """Everything that is set: names in upper case, values without surrounding space and never empty.

    Args:
        values: the environment over the file.
        file_names: the names that the file sets, since a misspelt name there is surely meant for us.
        mistakes: what could not be read.
        warnings: what was read but looks unintended.
    """

    values: Mapping[str, str]
    file_names: frozenset[str] = frozenset()
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_variables(env_file: Path | None, environ: Mapping[str, str] | None = None) -> Variables:
    """Read the environment over an env file.

    An empty value means unset in both places, so an empty variable of the environment does not hide the file's.

    Args:
        env_file: lines of `NAME=value`; a missing file is an empty one.
        environ: the environment; the process's own when None.
    """
    from_file, mistakes, warnings = _read_env_file(env_file) if env_file else ({}, [], [])
    from_environ = _normalised(os.environ if environ is None else environ)
    return Variables(
        values={**from_file, **from_environ},
        file_names=frozenset(from_file),
        mistakes=tuple(mistakes),
        warnings=tuple(warnings),
    )


def _normalised(raw: Mapping[str, str]) -> dict[str, str]:
    """Names in upper case (one that is written so wins over `log_level`), values stripped, empty ones dropped."""
    by_case = sorted(raw.items(), key=lambda item: item[0].isupper())
    return {name.upper(): value.strip() for name, value in by_case if value.strip()}


def _read_env_file(path: Path) -> tuple[dict[str, str], list[str], list[str]]:
    # The parser of python-dotenv without its interpolation: a `${` in a password stays what it is.
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return {}, [], []
    except UnicodeDecodeError:
        return {}, [f"{path}: is not UTF-8 text, save it as UTF-8"], []
    except OSError as error:
        return {}, [f"{path}: cannot be read ({error.strerror})"], []
    found: dict[str, str] = {}
    mistakes: list[str] = []
    warnings: list[str] = []
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            # A statement's text begins with the blank lines before it.
            line = binding.original.line + _leading_newlines(binding.original.string)
            mistakes.append(f"{path}, line {line}: is not a setting, write it as LOG_LEVEL=info")
        elif binding.key is not None and binding.value is not None:
            if binding.key in found:
                warnings.append(f"{binding.key} is set more than once in {path}: the last one counts")
            found[binding.key] = binding.value
    return _normalised(found), mistakes, warnings


def _leading_newlines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


VariableSetT = TypeVar("VariableSetT", bound=VariableSet)


def checked(
    variable_set: type[VariableSetT], variables: Mapping[str, str], prefix: str = ""
) -> tuple[VariableSetT, frozenset[str], list[str]]:
    """Read one set, going on past mistakes so that all of them are found in one go.

    Args:
        variable_set: which variables.
        variables: what is set.
        prefix: what the names of this set begin with, for example `OPENAI_`.

    Returns:
        The set, with the default in place of whatever was wrong; the names of the fields that were wrong; the mistakes.
    """
    source = EnvSettingsSource(variable_set, env_prefix=prefix)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    data = source()
    try:
        return variable_set(**data), frozenset(), []
    except ValidationError as error:
        wrong: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False, include_input=False):
            wrong.setdefault(str(detail["loc"][0]), _reasons(detail["type"], detail["msg"], detail.get("ctx", {})))
    mistakes = [
        mistake(prefix + field.upper(), reason, _example(variable_set, field))
        for field, reasons in wrong.items()
        for reason in reasons
    ]
    rest = {field: value for field, value in data.items() if field not in wrong}
    return variable_set(**rest), frozenset(wrong), mistakes


def mistake(variable: str, reason: str, example: str) -> str:
    """The line that tells of a mistake."""
    return f"{variable}: {reason}, for example {variable}={example}"


def _example(variable_set: type[VariableSet], field: str) -> str:
    examples = variable_set.model_fields[field].examples or [""]
    return str(examples[0])


_WORDS: Mapping[str, str] = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of a sensible size",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "bool_parsing": "must be true or false",
    "literal_error": "must be {expected}",
}
"""Pydantic's types of errors in the words of whoever writes a `.env`."""


def _reasons(kind: str, message: str, context: Mapping[str, Any]) -> list[str]:
    if kind == "value_error":
        error = context["error"]
        return list(error.lines) if isinstance(error, Mistakes) else [str(error)]
    return [_WORDS.get(kind, message).format(**context).replace("'", "")]
