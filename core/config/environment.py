"""Reads variables from the environment and `.env`, and words mistakes in them.

A mistake is one line: the variable, the fault, an example. It never quotes the value, since a secret may have been
pasted into the wrong variable.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

from dotenv.parser import parse_stream
from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from typing_extensions import override


class Mistakes(ValueError):
    """Several faults of one variable; a plain `ValueError` is one."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("; ".join(lines))


class VariableSet(BaseSettings):
    """Base of models with a variable for each field.

    Nothing is read implicitly: `parse_variables` passes in the result of `read_variables`, so an instance that a test
    builds with keyword arguments does not depend on the environment.
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=False, hide_input_in_errors=True)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Ignores the process environment."""
        return (init_settings,)

    @classmethod
    def variable_names(cls, prefix: str = "") -> tuple[str, ...]:
        """Returns the names of the variables."""
        return tuple(prefix + field.upper() for field in cls.model_fields)


@dataclass(frozen=True, slots=True)
class Variables:
    """All variables that are set: names in upper case, values stripped and never empty.

    Args:
        values: the environment merged over the file.
        file_names: names set by the file, where an unknown name is most likely misspelt.
        mistakes: lines that could not be parsed.
        warnings: lines that were parsed but look unintended.
    """

    values: Mapping[str, str]
    file_names: frozenset[str] = frozenset()
    mistakes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_variables(env_file: Path | None, environ: Mapping[str, str] | None = None) -> Variables:
    """Returns the environment merged over an env file.

    An empty value means unset in both places, so an empty environment variable does not hide the one in the file.

    Args:
        env_file: lines of `NAME=value`; a missing file counts as empty.
        environ: the environment; None for that of the process.
    """
    from_file, mistakes, warnings = _read_env_file(env_file) if env_file else ({}, [], [])
    from_environ = _normalise(os.environ if environ is None else environ)
    return Variables(
        values={**from_file, **from_environ},
        file_names=frozenset(from_file),
        mistakes=tuple(mistakes),
        warnings=tuple(warnings),
    )


def _normalise(raw: Mapping[str, str]) -> dict[str, str]:
    """Returns names in upper case (LOG_LEVEL wins over `log_level`) with stripped values, without empty ones."""
    by_case = sorted(raw.items(), key=lambda item: item[0].isupper())
    return {name.upper(): value.strip() for name, value in by_case if value.strip()}


def _read_env_file(path: Path) -> tuple[dict[str, str], list[str], list[str]]:
    # The parser of python-dotenv, without its interpolation: a `${` in a password is literal.
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
    text = _take_split_json(text, path, mistakes)
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            # The text of a statement includes the blank lines before it.
            line = binding.original.line + _count_leading_newlines(binding.original.string)
            mistakes.append(f"{path}, line {line}: is not a setting, write it as LOG_LEVEL=info")
        elif binding.key is not None and binding.value is not None:
            if binding.key in found:
                warnings.append(f"{binding.key} is set more than once in {path}: the last one counts")
            found[binding.key] = binding.value
    return _normalise(found), mistakes, warnings


_JSON_BEGINS = re.compile(r"""\s*(?:export\s+)?(?P<name>[A-Za-z_]\w*)\s*=\s*(?P<quote>"?)\s*(?P<json>[{\[].*)""")


def _take_split_json(text: str, path: Path, mistakes: list[str]) -> str:
    """Returns the text without values that are JSON over several lines, each of which is one mistake.

    In single quotes such a value is valid. Without them each of its lines would be a mistake of its own.
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        begin = _JSON_BEGINS.match(lines[number])
        length = _count_json_lines([begin["json"], *lines[number + 1 :]]) if begin else 0
        if begin and (length > 1 or (begin["quote"] and re.match(r'[{\[]\s*"', begin["json"]))):
            name = begin["name"].upper()
            fault = "is JSON over several lines" if length > 1 else "is JSON in double quotes"
            mend = "write it on one line, or in single quotes" if length > 1 else "leave the outer quotes out"
            example = '{"ollama": ["gpt-oss"]}' if name == "AVAILABLE_PROVIDERS" else '{"name": "value"}'
            mistakes.append(format_mistake(name, f"{fault} ({path}, line {number + 1}), {mend}", example))
            lines[number : number + max(length, 1)] = [""] * max(length, 1)
        number += 1
    return "\n".join(lines)


def _count_json_lines(lines: Sequence[str]) -> int:
    """Returns the number of lines up to the bracket that closes the first one; 0 if there is none."""
    depth = 0
    for number, line in enumerate(lines, start=1):
        outside_strings = re.sub(r'"(\\.|[^"\\])*"', "", line)
        depth += sum(map(outside_strings.count, "{[")) - sum(map(outside_strings.count, "}]"))
        if depth <= 0:
            return number
    return 0


def _count_leading_newlines(text: str) -> int:
    return text[: len(text) - len(text.lstrip())].count("\n")


VariableSetT = TypeVar("VariableSetT", bound=VariableSet)


def parse_variables(
    variable_set: type[VariableSetT], variables: Mapping[str, str], prefix: str = ""
) -> tuple[VariableSetT, frozenset[str], list[str]]:
    """Parses the variables of one set and collects all mistakes.

    Args:
        variable_set: the model to build.
        variables: all variables that are set.
        prefix: prefix of the names of this set, for example `OPENAI_`.

    Returns:
        The set, with defaults for invalid fields; the names of those fields; the mistakes.
    """
    source = EnvSettingsSource(variable_set, env_prefix=prefix)
    source.env_vars = {name.lower(): value for name, value in variables.items()}
    data = source()
    try:
        return variable_set(**data), frozenset(), []
    except ValidationError as error:
        faults: dict[str, list[str]] = {}
        for detail in error.errors(include_url=False, include_input=False):
            faults.setdefault(
                str(detail["loc"][0]), _describe_fault(detail["type"], detail["msg"], detail.get("ctx", {}))
            )
    mistakes = [
        format_mistake(prefix + field.upper(), fault, _get_example(variable_set, field))
        for field, of_field in faults.items()
        for fault in of_field
    ]
    valid = {field: value for field, value in data.items() if field not in faults}
    return variable_set(**valid), frozenset(faults), mistakes


def format_mistake(variable: str, fault: str, example: str) -> str:
    """Returns the line that reports a mistake."""
    return f"{variable}: {fault}, for example {variable}={example}"


def _get_example(variable_set: type[VariableSet], field: str) -> str:
    examples = variable_set.model_fields[field].examples or [""]
    return str(examples[0])


_FAULTS: Mapping[str, str] = {
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
    "enum": "must be {expected}",
}
"""Messages for Pydantic's error types, worded for the author of a `.env`."""


def _describe_fault(kind: str, message: str, context: Mapping[str, Any]) -> list[str]:
    if kind == "value_error":
        error = context["error"]
        return list(error.lines) if isinstance(error, Mistakes) else [str(error)]
    # A bound of a number reads 0 rather than 0.0.
    bounds = {name: f"{bound:.10g}" if isinstance(bound, float) else bound for name, bound in context.items()}
    return [_FAULTS.get(kind, message).format(**bounds).replace("'", "")]
