"""A Bot API server on loopback, as strict as Telegram's, with faults that tests inject.

Tests read the chats as a person sees them (`server.chat(7).texts()`), act for that person (`user_says`, `presses`)
and inject faults (`fail`, `drop`, `garble`, `flood`, `hold`). By hand, from another process:

    python -m tests.support.fake_telegram.server --port 8081
    curl -d '{"chat_id": 7, "text": "hello"}' http://127.0.0.1:8081/control/say
    curl http://127.0.0.1:8081/control/chats
"""

import argparse
import asyncio
import contextlib
import json
from typing import Any, Self

from aiohttp import web

from core.clock import Clock
from tests.support.fake_telegram.chats import JsonObject, Refusal, Upload, addressee
from tests.support.fake_telegram.control import ControlEndpoints
from tests.support.fake_telegram.faults import ConnectionDropped, FaultInjection
from tests.support.fake_telegram.state import TOKEN, Call
from tests.support.fake_telegram.updates import UpdateDelivery
from tests.support.fake_telegram.users import UserActions

__all__ = ["TOKEN", "TelegramServer"]


class TelegramServer(UpdateDelivery, UserActions, FaultInjection):
    """One bot's view of Telegram over HTTP.

    Args:
        token: every other token is answered 401.
        clock: dates messages and edits, and ends floods.
        port: 0 for a free one.
    """

    def __init__(self, *, token: str = TOKEN, clock: Clock | None = None, port: int = 0) -> None:
        super().__init__(token=token, clock=clock)
        self.url = ""
        self.lag_s = 0.0
        """Delay of an answer after the call was carried out; polls have none."""
        self._port = port
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens on loopback."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/bot{token}/{method}", self._on_call)
        app.router.add_get("/file/bot{token}/{path:.+}", self._on_download)
        ControlEndpoints(self).add_routes(app)
        self._stopping = False
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Closes all connections. The chats stay readable, and `start` listens on the same port again."""
        self._stopping = True
        for fault in self._faults:
            fault.end()
        await self._stop_webhook()
        await self._notify()
        if self._notices:
            await asyncio.gather(*self._notices)
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _on_call(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        params = await _params(request)
        status, result = 200, None
        try:
            response, result = await self._answer(request.match_info["token"], method, params)
            status = response.status
        except Refusal as refusal:
            status = refusal.status
            response = _error(refusal)
        except ConnectionDropped:
            status = 0
            if request.transport is not None:
                request.transport.close()
            response = web.Response(status=500)
        is_cut_off = request.transport is None or request.transport.is_closing()
        self.calls.append(Call(method, params, self._clock.time(), status, result, is_cut_off))
        await self._notify()
        return response

    async def _answer(self, token: str, method: str, params: JsonObject) -> tuple[web.StreamResponse, Any]:
        if token != self.token:
            raise Refusal(401, "Unauthorized")
        fault = self._next_fault(method, addressee(params))
        if fault is not None and fault.before:
            if fault.refusal is not None:
                raise fault.refusal
            if fault.act is not None:
                return fault.act(), None
            if fault.gate is not None:
                await fault.gate.wait()
        if method.lower() == "getupdates":
            result = await self._get_updates(params)
        else:
            handler = self._methods.get(method.lower())
            if handler is None or method in self.unknown_methods:
                raise Refusal(404, "Not Found")
            result = handler(params)
            if self.lag_s:
                await asyncio.sleep(self.lag_s)
        if fault is not None and fault.act is not None:
            return fault.act(), result
        return web.json_response({"ok": True, "result": result}), result

    async def _on_download(self, request: web.Request) -> web.Response:
        if request.match_info["token"] != self.token:
            return _error(Refusal(401, "Unauthorized"))
        path = request.match_info["path"]
        for known, data in self._files.values():
            if known == path:
                return web.Response(body=data)
        return _error(Refusal(404, "Not Found"))


async def _params(request: web.Request) -> JsonObject:
    params: JsonObject = dict(request.query)
    if request.content_type == "application/json":
        body = await request.read()
        return params | (json.loads(body) if body else {})
    for key, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            params[key] = Upload(value.filename, value.file.read())
            value.file.close()
        else:
            params[key] = value
    return params


def _error(refusal: Refusal) -> web.Response:
    body: JsonObject = {"ok": False, "error_code": refusal.status, "description": refusal.description}
    if refusal.parameters:
        body["parameters"] = refusal.parameters
    return web.json_response(body, status=refusal.status)


async def _serve(port: int, token: str) -> None:
    async with TelegramServer(port=port, token=token) as server:
        print(f"TELEGRAM_API_BASE_URL={server.url} TELEGRAM_BOT_TOKEN={token}", flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """Serves until interrupted."""
    parser = argparse.ArgumentParser(description="A Bot API server on loopback")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--token", default=TOKEN)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.port, options.token))


if __name__ == "__main__":
    main()
