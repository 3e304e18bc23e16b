"""Control endpoints of the fake Bot API server, for experiments by hand and from other processes."""

import base64
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from tests.support.fake_telegram.server import TelegramServer


class ControlEndpoints:
    """Writes, presses buttons, injects faults and shows the chats over HTTP."""

    def __init__(self, server: "TelegramServer") -> None:
        self._server = server

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/control/say", self._on_say)
        app.router.add_post("/control/press", self._on_press)
        app.router.add_post("/control/fail", self._on_fail)
        app.router.add_get("/control/chats", self._on_chats)
        app.router.add_get("/control/calls", self._on_calls)

    async def _on_say(self, request: web.Request) -> web.Response:
        said = await request.json()
        for media in ("photo", "document"):
            if said.get(media):
                said[media] = base64.b64decode(said[media])
        message = self._server.user_says(said.pop("text", ""), said.pop("chat_id", 7), **said)
        return web.json_response({"message_id": message.id})

    async def _on_press(self, request: web.Request) -> web.Response:
        pressed = await request.json()
        messages = self._server.chat(pressed["chat_id"]).answers()
        if "message_id" in pressed:
            messages = [message for message in messages if message.id == pressed["message_id"]]
        shown = [message for message in messages if message.buttons]
        if not shown:
            return web.json_response({"error": "no message with buttons"}, status=404)
        try:
            query_id = self._server.presses(shown[-1], pressed["button"], pressed.get("user_id"))
        except AssertionError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.json_response({"callback_query_id": query_id})

    async def _on_fail(self, request: web.Request) -> web.Response:
        scripted = await request.json()
        self._server.fail(scripted.pop("method"), scripted.pop("times", 1), **scripted)
        return web.json_response({"ok": True})

    async def _on_chats(self, _: web.Request) -> web.Response:
        shown = [
            {
                "id": chat.id,
                "type": chat.type,
                "typing": len(chat.actions),
                "drafts": len(chat.drafts),
                "messages": [
                    {
                        "id": message.id,
                        "by_bot": message.by_bot,
                        "text": message.text,
                        "entities": message.entities,
                        "buttons": message.labels,
                        "topic_id": message.topic_id,
                        "edits": len(message.edits) - 1,
                    }
                    for message in chat.visible()
                ],
            }
            for chat in self._server.chats.values()
        ]
        return web.json_response(shown)

    async def _on_calls(self, _: web.Request) -> web.Response:
        shown = [{"method": call.method, "at": call.at, "status": call.status} for call in self._server.calls]
        return web.json_response(shown)
