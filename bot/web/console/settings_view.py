"""The effective settings as the console lists them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from core.config.providers import ProviderVariables, variable_prefix
from core.config.settings import CommonVariables
from services.admin.configuration import ProviderConfiguration, ValueSource, is_secret


@dataclass(frozen=True, slots=True)
class SettingView:
    """One variable.

    Args:
        value: its text; None for a secret, of which only `is_set` is shown.
        changed: when the console set it, in words.
    """

    name: str
    value: str | None
    is_set: bool
    source: ValueSource
    changed: str | None


def setting_views(configuration: ProviderConfiguration, moment: Callable[[datetime], str]) -> list[SettingView]:
    """Returns the common variables, then those of the providers that are set."""
    variables, stored = configuration.variables(), configuration.current.stored
    names = list(CommonVariables.variable_names())
    for provider in configuration.current.providers:
        own = ProviderVariables.variable_names(variable_prefix(provider.id))
        names += [name for name in own if name in variables and name not in names]
    secret = {name.upper() for name, field in CommonVariables.model_fields.items() if "Secret" in str(field.annotation)}
    return [
        SettingView(
            name=name,
            value=None if name in secret or is_secret(name) else variables.get(name, _default(name)),
            is_set=name in variables,
            source=configuration.source(name),
            changed=moment(stored[name].at) if name in stored else None,
        )
        for name in names
    ]


def _default(name: str) -> str:
    field = CommonVariables.model_fields.get(name.lower())
    default: object = None if field is None else field.get_default(call_default_factory=True)
    if default is None:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    if isinstance(default, str) or not isinstance(default, Iterable):
        return str(default)
    return ", ".join(str(each) for each in cast("Iterable[object]", default))
