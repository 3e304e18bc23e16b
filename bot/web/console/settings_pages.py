"""The effective settings: their sources, export, reset and undo; and the list of pages for a phone."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import done, download
from bot.web.server import HttpRoute
from core.config.providers import ProviderVariables, variable_prefix
from core.config.variables import CommonVariables
from services.admin.config_store import ConfigConflict, is_secret
from services.admin.configuration import ProviderConfiguration, ValueSource


class SettingsPages:
    """Shows the settings, resets them, and undoes changes of the configuration."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session and the form themselves."""
        page = self._frame.page
        return (
            page("/more", self.more),
            page("/settings", self.settings),
            *self._frame.file("/settings.env", self.export, "settings"),
            self._frame.act("/settings/{name}/reset", self.reset_setting),
            self._frame.act("/undo/{id}", self.undo),
        )

    async def more(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns the pages that a phone's navigation has no room for."""
        return self._frame.render(request, session, "more.html", title="web-more", page="more")

    async def settings(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Returns every variable in effect with its source; of a secret no character is shown."""
        configuration = self._frame.parts.configuration
        return self._frame.render(
            request,
            session,
            "settings.html",
            title="web-settings",
            page="settings",
            rows=setting_views(configuration, self._frame.moment),
            revision=configuration.current.revision,
        )

    async def export(self, _request: web.Request, _session: OperatorSession) -> web.Response:
        """Returns the variables that the console set, as lines of a `.env` file without keys."""
        lines = self._frame.parts.configuration.export_lines()
        # Never empty, which Telegram refuses to take as a file.
        head = "# Set in the web console over the environment" if lines else "# Nothing is set in the web console"
        return download(
            "".join(f"{line}\n" for line in (f"{head}. Keys are not exported.", *lines)), "text/plain", "console.env"
        )

    async def reset_setting(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Gives a variable the value of the environment again."""
        name = request.match_info["name"]
        if name not in self._frame.parts.configuration.current.stored:
            raise web.HTTPNotFound
        await self._frame.save({name: None}, session, await request.post(), note=f"reset {name}")
        return done("reset-setting", name, page="settings", undo=self._frame.config_undo_path())

    async def undo(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Takes one change of the configuration back."""
        revision = self._frame.number(request)
        try:
            await self._frame.parts.configuration.undo(revision, session.actor_id, note=f"undo of change {revision}")
        except ConfigConflict:
            raise web.HTTPConflict(text=self._frame.text(request, "web-undo-late")) from None
        await self._frame.parts.audit.try_record(session.actor_id, "config.undo", f"{revision}")
        await self._frame.parts.fallback.control.follow_order()
        return done("undone")


@dataclass(frozen=True, slots=True)
class SettingView:
    """One variable.

    Args:
        value: text; None for a secret, of which only `is_set` is shown.
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
