"""Acts on providers: forms that are posted, audited, and end in a redirect."""

import asyncio
import re
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Final

from aiohttp import web

from bot.web.console.frame.access import OperatorSession
from bot.web.console.frame.frame import Frame
from bot.web.console.frame.responses import HOME, done, redirect, undo_path
from bot.web.console.provider_pages import FORCE_CHOICES, ModelCatalogue, ProviderForm, form_page, list_providers
from bot.web.server import HttpRoute
from core.config.providers import ProviderSettings, ProviderVariables, variable_prefix
from core.errors import ConfigurationError
from services.admin.config_store import SecretsKeyMissing
from services.admin.configuration import LISTED
from services.llm.models.inspection import AspectReport, ProviderInspector
from services.llm.models.trial import ProviderTrial
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.catalog import Catalog, CatalogError
from services.llm.providers.local_servers import find_local_servers

_POSITION: Final = re.compile(r"[1-9][0-9]{0,3}")


class ProviderActs:
    """Forces, cools down, tests, orders, saves and removes providers."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    @property
    def routes(self) -> tuple[HttpRoute, ...]:
        """The routes. They check the session and the form themselves."""
        handlers = {
            "/new-provider": self.save_provider,
            "/local-servers": self.look_for_servers,
            "/test-providers": self.test_all,
            "/providers/{id}": self.save_provider,
            "/providers/{id}/remove": self.remove_provider,
            "/providers/{id}/force": self.force,
            "/providers/{id}/cool": self.cool,
            "/providers/{id}/reset": self.reset,
            "/providers/{id}/test": self.test,
            "/providers/{id}/move": self.move,
            "/release": self.release,
        }
        return tuple(self._frame.act(path, handler) for path, handler in handlers.items())

    async def force(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Forces a provider for the chosen time."""
        provider = self._frame.usable(request)
        text = str((await request.post()).get("for", ""))
        seconds = int(text) if text in {str(choice) for choice in FORCE_CHOICES} else FORCE_CHOICES[0]
        admin = self._frame.parts.admin
        act = await admin.force(provider, session.actor_id, float(seconds))
        return done("forced", provider.id, undo=undo_path(act.record.undo_id))

    async def release(self, _request: web.Request, session: OperatorSession) -> web.Response:
        """Ends the force and the preference."""
        record = await self._frame.parts.admin.clear(session.actor_id)
        return done("released", undo=undo_path(record.undo_id))

    async def cool(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Asks a provider last for a while."""
        provider = self._frame.usable(request)
        act = await self._frame.parts.admin.cooldown(provider, session.actor_id)
        return done("cooled", provider.id, undo=undo_path(act.record.undo_id))

    async def reset(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Ends a cooldown."""
        provider = self._frame.usable(request)
        act = await self._frame.parts.admin.reset(provider, session.actor_id)
        return done("reset", provider.id, undo=undo_path(act.record.undo_id))

    async def test(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Asks a provider for a few tokens, as chat would."""
        return await self._show_tests(request, session, [self._frame.usable(request)])

    async def test_all(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Asks every provider that is configured, all at once."""
        return await self._show_tests(request, session, self._frame.parts.fallback.providers)

    async def _show_tests(
        self, request: web.Request, session: OperatorSession, providers: Sequence[ProviderSettings]
    ) -> web.Response:
        admin = self._frame.parts.admin
        tested = await asyncio.gather(*(admin.test(provider, session.actor_id) for provider in providers))
        return self._frame.render(
            request,
            session,
            "test.html",
            title="web-test",
            page="providers",
            results=[(provider.id, each.result) for provider, each in zip(providers, tested, strict=True)],
        )

    async def move(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Moves a provider one place up or down, or to a position from 1 on."""
        form = await request.post()
        provider = self._frame.known(request)
        names = [each.id for each in self._frame.parts.configuration.current.providers]
        here = names.index(provider.id)
        there = _place(str(form.get("to", "")), here)
        if there == here or not 0 <= there < len(names):
            return redirect(f"{HOME}/providers")
        names.insert(there, names.pop(here))
        known = {each.id: each.models for each in self._frame.parts.configuration.current.providers}
        changes = {LISTED: list_providers({name: known[name] for name in names})}
        await self._frame.save(changes, session, form, note=f"order: {', '.join(names)}")
        await self._frame.parts.fallback.control.follow_order()
        return done("moved", provider.id, undo=self._frame.config_undo_path())

    async def save_provider(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Saves a form, or tests its values before they are saved."""
        posted = await request.post()
        data = {name: str(value) for name, value in posted.items()}
        configuration = self._frame.parts.configuration
        provider = self._frame.known(request) if "id" in request.match_info else None
        added = [str(name) for name in posted.getall("add", [])]
        form = ProviderForm.parse(data, provider.id if provider is not None else None, added)
        if data.get("act") == "catalogue":
            return await self._show_catalogue(request, session, form, provider, data.get("q", "").strip()[:100])
        answer = partial(form_page, self._frame, request, session, form, provider)
        if provider is None and any(each.id == form.provider_id for each in configuration.current.providers):
            return answer(faults=[self._frame.text(request, "web-id-taken", id=form.provider_id)])
        if not form.provider_id or not form.models:
            return answer(faults=[self._frame.text(request, "web-form-incomplete")])
        changes = form.changes(configuration.current.providers, configuration.variables())
        try:
            proposed = next(each for each in configuration.preview(changes) if each.id == form.provider_id)
            if data.get("act") == "test":
                return answer(reports=await self._inspect(proposed))
            await self._frame.save(changes, session, data, note=f"{form.provider_id}: {', '.join(sorted(changes))}")
        except ConfigurationError as error:
            return answer(faults=error.mistakes)
        except SecretsKeyMissing:
            return answer(faults=[self._frame.text(request, "web-no-secrets-key")])
        # Saved on purpose: the record of the former settings does not apply to the new ones.
        await self._frame.parts.fallback.control.reset(form.provider_id)
        return done("saved", form.provider_id, undo=self._frame.config_undo_path())

    async def look_for_servers(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Asks the usual ports of this machine for model servers, and offers a form for each that answers."""
        clock = self._frame.parts.clock
        async with aclosing(ModelBuilder(clock)) as builder:
            catalog = Catalog(builder.http_client, clock)
            servers = await find_local_servers(catalog, own_port=self._frame.parts.settings.web_port)
        providers = self._frame.parts.configuration.current.providers
        known = {(each.base_url or "").replace("//localhost:", "//127.0.0.1:") for each in providers}
        return self._frame.render(
            request, session, "local_servers.html", title="web-local-servers", page="providers", servers=servers,
            known=known,
        )  # fmt: skip

    async def remove_provider(self, request: web.Request, session: OperatorSession) -> web.Response:
        """Removes a provider with its key and its state."""
        provider = self._frame.known(request)
        configuration = self._frame.parts.configuration
        rest = {each.id: each.models for each in configuration.current.providers if each.id != provider.id}
        own = ProviderVariables.variable_names(variable_prefix(provider.id))
        changes: dict[str, str | None] = {LISTED: list_providers(rest)}
        changes.update({name: None for name in own if name in configuration.current.stored})
        await self._frame.save(changes, session, await request.post(), note=f"removed {provider.id}")
        await self._frame.parts.fallback.control.forget(provider.id)
        return done("removed", provider.id)

    async def _inspect(self, provider: ProviderSettings) -> Sequence[AspectReport]:
        """Checks settings that are not saved, over connections of their own."""
        clock = self._frame.parts.clock
        async with aclosing(ModelBuilder(clock)) as builder:
            trial = ProviderTrial(builder, clock, self._frame.parts.admin.default_cooldown_s)
            return await ProviderInspector(Catalog(builder.http_client, clock), trial, clock).inspect(provider)

    async def _show_catalogue(
        self,
        request: web.Request,
        session: OperatorSession,
        form: ProviderForm,
        provider: ProviderSettings | None,
        query: str,
    ) -> web.Response:
        """Returns the form with the models that the server lists now, asked with the values of the form."""
        parts = self._frame.parts
        asked = replace(form, provider_id=form.provider_id or "new", models=form.models or ("any",))
        answer = partial(form_page, self._frame, request, session, form, provider)
        try:
            changes = asked.changes(parts.configuration.current.providers, parts.configuration.variables())
            proposed = next(each for each in parts.configuration.preview(changes) if each.id == asked.provider_id)
            async with aclosing(ModelBuilder(parts.clock)) as builder:
                models = await Catalog(builder.http_client, parts.clock).live_models(proposed)
        except ConfigurationError as error:
            return answer(faults=error.mistakes)
        except CatalogError as error:
            return answer(faults=[self._frame.text(request, "web-no-catalogue", reason=error.reason)])
        return answer(catalogue=ModelCatalogue.search(models, form.models, query))


def _place(to: str, here: int) -> int:
    """Returns the index that a form asks for; the present one if it cannot be read."""
    if to in {"up", "down"}:
        return here + (-1 if to == "up" else 1)
    return int(to) - 1 if _POSITION.fullmatch(to) else here
