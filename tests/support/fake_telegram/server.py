"""A Bot API server on loopback: as strict as Telegram's own about what it takes, and obedient about what fails.

Tests look at what a person would see (`server.chat(7).texts()`), act for that person (`user_says`, `presses`)
and script faults (`fail`, `drop`, `garble`, `flood`, `hold`). By hand, from another process:

    python -m tests.support.fake_telegram.server --port 8081
    curl -d '{"chat_id": 7, "text": "hello"}' http://127.0.0.1:8081/control/say
    curl http://127.0.0.1:8081/control/chats
"""

import argparse
import asyncio
import base64
import contextlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import aiohttp
from aiohttp import web

from core.clock import Clock, SystemClock
from tests.support.fake_telegram.chats import (
    TEXT_LIMIT,
    Chat,
    Draft,
    JsonObject,
    Message,
    Refusal,
    Upload,
    addressee,
    bad,
    check_text,
    checked_entities,
    checked_markup,
    flag_of,
    json_of,
    natural_entities,
    not_modified,
    units,
)

TOKEN = "42:loopback-token"
REPOLL_S = 0.02
T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call that a bot made, and the status it got (0: the connection was closed on it)."""

    method: str
    params: JsonObject
    at: float
    status: int
    result: Any = None
    """What it got, where it was carried out."""
    is_cut_off: bool = False
    """Whether the caller had hung up before its answer was there."""

    @property
    def chat_id(self) -> int | None:
        return addressee(self.params)


@dataclass
class InjectedFault:
    """A scripted fault: `times` counts down to zero."""

    method: str
    times: float
    chat_id: int | None
    before: bool
    act: Callable[[], web.StreamResponse] | None = None
    refusal: Refusal | None = None
    gate: asyncio.Event | None = None

    def meets(self, method: str, chat_id: int | None) -> bool:
        return self.times > 0 and self.method in (method, "*") and self.chat_id in (None, chat_id)

    def mend(self) -> None:
        """Fail no more, and let go what waits at the gate."""
        self.times = 0
        if self.gate is not None:
            self.gate.set()


class Dropped(Exception):
    """The connection is to be closed without an answer."""


class TelegramServer:
    """One bot's view of Telegram.

    Args:
        token: the only token that is not answered 401.
        clock: what the times of messages and edits are read from, and what floods pass by.
        port: 0 for a free one.
    """

    def __init__(self, *, token: str = TOKEN, clock: Clock | None = None, port: int = 0) -> None:
        self.token = token
        self.bot_id = int(token.partition(":")[0])
        self.username = "understudy_bot"
        self.url = ""
        self.calls: list[Call] = []
        self.chats: dict[int, Chat] = {}
        self.callback_answers: dict[str, JsonObject] = {}
        self.menus: dict[str, list[JsonObject]] = {}
        self.unknown_methods: set[str] = set()
        self.webhook: JsonObject | None = None
        self.pending: list[JsonObject] = []
        self.lag_s = 0.0
        """How long an answer is under way, after the call was carried out; polls have no lag."""
        self._clock: Clock = clock or SystemClock()
        self._port = port
        self._faults: list[InjectedFault] = []
        self._files: dict[str, tuple[str, bytes]] = {}
        self._counter = 0
        self._update_id = 100
        self._queries: set[str] = set()
        self._poller = 0
        self._polls: list[float] = []
        self._allowed: list[str] | None = None
        self._changed = asyncio.Condition()
        self._stopping = False
        self._webhook_task: asyncio.Task[None] | None = None
        self._notices: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None
        self._methods: dict[str, Callable[[JsonObject], Any]] = {
            "getme": self._get_me,
            "setwebhook": self._set_webhook,
            "deletewebhook": self._delete_webhook,
            "getwebhookinfo": lambda _: {"url": (self.webhook or {}).get("url", ""), "has_custom_certificate": False,
                                         "pending_update_count": len(self.pending)},
            "sendmessage": self._send_message,
            "senddocument": self._send_document,
            "sendmessagedraft": self._send_message_draft,
            "editmessagetext": self._edit_message_text,
            "editmessagereplymarkup": self._edit_message_reply_markup,
            "deletemessage": self._delete_message,
            "deletemessages": self._delete_messages,
            "restrictchatmember": self._restrict_chat_member,
            "banchatmember": self._ban_chat_member,
            "unbanchatmember": self._unban_chat_member,
            "banchatsenderchat": self._ban_chat_sender_chat,
            "unbanchatsenderchat": self._unban_chat_sender_chat,
            "sendchataction": self._send_chat_action,
            "answercallbackquery": self._answer_callback_query,
            "setmycommands": self._set_my_commands,
            "getchat": self._get_chat,
            "getchatmember": self._get_chat_member,
            "getchatadministrators": self._get_chat_administrators,
            "getfile": self._get_file,
        }  # fmt: skip

    async def start(self) -> None:
        """Listen on loopback."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/bot{token}/{method}", self._on_call)
        app.router.add_get("/file/bot{token}/{path:.+}", self._on_download)
        app.router.add_post("/control/say", self._on_say)
        app.router.add_post("/control/press", self._on_press)
        app.router.add_post("/control/fail", self._on_fail)
        app.router.add_get("/control/chats", self._on_chats)
        app.router.add_get("/control/calls", self._on_calls)
        self._stopping = False
        self._runner = web.AppRunner(app, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Close everything; what was said stays readable, and `start` listens on the same port again."""
        self._stopping = True
        for fault in self._faults:
            fault.mend()
        if self._webhook_task is not None:
            self._webhook_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._webhook_task
            self._webhook_task = None
        await self._tell()
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

    # What tests look at.

    @property
    def polls(self) -> int:
        """How many calls of getUpdates have begun, the one that waits included."""
        return self._poller

    def chat(self, chat_id: int) -> Chat:
        """A chat, made on first use: private for a user's id, a supergroup for a negative one."""
        if chat_id not in self.chats:
            kind = "private" if chat_id > 0 else "supergroup"
            self.chats[chat_id] = Chat(chat_id, kind, None if chat_id > 0 else f"Group {-chat_id}")
        return self.chats[chat_id]

    def calls_of(self, method: str, chat_id: int | None = None) -> list[Call]:
        """The calls of one method so far, in a chat where one is given."""
        return [call for call in self.calls if call.method == method and chat_id in (None, call.chat_id)]

    def polls_begun(self, *, since: float) -> list[float]:
        """When polls began, from an instant on; `calls` has only those that have ended."""
        return [at for at in self._polls if at >= since]

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 5.0) -> T:  # noqa: ASYNC109 - the caller's patience is this helper's point
        """Wait until `predicate` gives something true, and hand that back."""
        deadline = time.monotonic() + timeout
        while True:
            if value := predicate():
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s; the server saw\n{self.summary()}")
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), REPOLL_S)

    def summary(self) -> str:
        """What happened, short enough for a failed assertion."""
        calls = ", ".join(f"{call.method}:{call.status}" for call in self.calls[-30:])
        chats = "\n".join(f"  {chat.id}: {chat.texts()!r}"[:400] for chat in self.chats.values())
        return f"  calls: {calls}\n{chats}"

    # What people do.

    def user_says(
        self,
        text: str = "",
        chat_id: int = 7,
        *,
        user_id: int | None = None,
        name: str = "Ann",
        language: str = "en",
        chat_type: str | None = None,
        message_thread_id: int | None = None,
        reply_to: int | Message | None = None,
        photo: bytes | None = None,
        document: bytes | None = None,
        file_name: str = "note.txt",
        media_type: str = "text/plain",
        entities: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Message:
        """A person writes. `extra` is merged into the raw message (stickers, forwards, nonsense)."""
        chat = self.chat(chat_id)
        chat.type = chat_type or chat.type
        user_id = user_id if user_id is not None else abs(chat_id)
        marks = [dict(entity) for entity in entities] if entities is not None else natural_entities(text)
        has_media = photo is not None or document is not None
        fields: JsonObject = dict(extra or {})
        if text:
            fields["caption" if has_media else "text"] = text
            if marks:
                fields["caption_entities" if has_media else "entities"] = marks
        if photo is not None:
            file_id = self.add_file(photo, "photos/photo.jpg")
            size = {"file_id": file_id, "file_unique_id": f"u{file_id}", "width": 90, "height": 90}
            fields["photo"] = [size, {**size, "width": 800, "height": 800, "file_size": len(photo)}]
        if document is not None:
            file_id = self.add_file(document, f"documents/{file_name}")
            fields["document"] = {"file_id": file_id, "file_unique_id": f"u{file_id}", "file_name": file_name,
                                  "mime_type": media_type, "file_size": len(document)}  # fmt: skip
        reply_id = reply_to.id if isinstance(reply_to, Message) else reply_to
        message = self._add(chat, user_id, text, marks, topic_id=message_thread_id, reply_to=reply_id)
        message.fields = {"from": {"id": user_id, "is_bot": False, "first_name": name, "language_code": language}}
        message.fields |= fields
        self.push_update(message=self._message_object(message))
        return message

    def user_edits(self, message: Message, text: str) -> None:
        """A person changes what they wrote."""
        marks = natural_entities(text)
        message.become(self._clock.time(), text, marks, None)
        field = "caption" if "caption" in message.fields else "text"
        message.fields |= {field: text, "edit_date": int(self._clock.time())}
        message.fields["caption_entities" if field == "caption" else "entities"] = marks
        self.push_update(edited_message=self._message_object(message))

    def presses(self, message: Message, button: str, user_id: int | None = None) -> str:
        """A person presses a button, named by its label or its data; the query's id comes back."""
        found = [item for item in message.buttons if button in (item["text"], item.get("callback_data"))]
        if not found or message.deleted:
            raise AssertionError(f"no button {button!r} to press, there are {message.labels}")
        user_id = user_id if user_id is not None else abs(message.chat_id)
        query_id = str(self._next())
        self._queries.add(query_id)
        self.push_update(
            callback_query={
                "id": query_id,
                "from": {"id": user_id, "is_bot": False, "first_name": "Ann", "language_code": "en"},
                "message": self._message_object(message),
                "chat_instance": str(message.chat_id),
                "data": found[0]["callback_data"],
            }
        )
        return query_id

    def stops_draft(self, chat_id: int) -> None:
        """A person presses the draft's own stop button."""
        draft = self.chat(chat_id).drafts[-1]
        stopped = {"chat": self._chat_object(self.chat(chat_id)), "draft_id": draft.draft_id}
        self.push_update(stopped_message_generation=stopped)

    def push_update(self, **content: object) -> int:
        """Any update at all, also one that no library can read; its id comes back."""
        self._update_id += 1
        self.pending.append({"update_id": self._update_id, **content})
        self._tell_soon()
        return self._update_id

    def add_file(self, data: bytes, path: str) -> str:
        """Something to be downloaded; its file id comes back."""
        file_id = f"file-{self._next()}"
        folder, _, name = path.rpartition("/")
        self._files[file_id] = (f"{folder or 'documents'}/{file_id}-{name}", data)
        return file_id

    # What goes wrong. A method may be "*".

    def fail(
        self,
        method: str,
        times: float = 1,
        *,
        status: int = 500,
        description: str = "Internal Server Error",
        retry_after: int | None = None,
        migrate_to: int | None = None,
        chat_id: int | None = None,
    ) -> InjectedFault:
        """The next calls are answered with an error and not carried out."""
        parameters = {"retry_after": retry_after, "migrate_to_chat_id": migrate_to}
        refusal = Refusal(status, description, **{key: value for key, value in parameters.items() if value is not None})
        return self._script(InjectedFault(method, times, chat_id, before=True, refusal=refusal))

    def drop(
        self, method: str, times: float = 1, *, executed: bool = True, chat_id: int | None = None
    ) -> InjectedFault:
        """The connection is closed without an answer, after (or before) the call was carried out."""

        def act() -> web.StreamResponse:
            raise Dropped

        return self._script(InjectedFault(method, times, chat_id, before=not executed, act=act))

    def garble(
        self, method: str, times: float = 1, *, executed: bool = True, body: str = "<html>oops</html>"
    ) -> InjectedFault:
        """The answer is a 200 that no client can decode."""
        return self._script(
            InjectedFault(method, times, None, before=not executed, act=lambda: web.Response(text=body))
        )

    def hold(self, method: str, times: float = 1, *, chat_id: int | None = None) -> InjectedFault:
        """The next calls wait until `mend()` is called on what this gives back, then are carried out."""
        return self._script(InjectedFault(method, times, chat_id, before=True, gate=asyncio.Event()))

    def flood(self, chat_id: int, seconds: float) -> None:
        """Every call in that chat is answered 429 for so long, by the server's clock."""
        self.chat(chat_id).flooded_until = self._clock.monotonic() + seconds

    def second_poller(self, times: float = 1) -> InjectedFault:
        """Another instance polls with the same token."""
        return self.fail(
            "getUpdates",
            times,
            status=409,
            description="Conflict: terminated by other getUpdates request; "
            "make sure that only one bot instance is running",
        )

    def block(self, chat_id: int, description: str = "bot was blocked by the user") -> None:
        """The chat is closed to the bot from now on."""
        self.chat(chat_id).refusal = Refusal(403, f"Forbidden: {description}")

    def _script(self, fault: InjectedFault) -> InjectedFault:
        self._faults.append(fault)
        return fault

    # HTTP.

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
        except Dropped:
            status = 0
            if request.transport is not None:
                request.transport.close()
            response = web.Response(status=500)
        is_cut_off = request.transport is None or request.transport.is_closing()
        self.calls.append(Call(method, params, self._clock.time(), status, result, is_cut_off))
        await self._tell()
        return response

    async def _answer(self, token: str, method: str, params: JsonObject) -> tuple[web.StreamResponse, Any]:
        if token != self.token:
            raise Refusal(401, "Unauthorized")
        fault = self._strike(method, addressee(params))
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

    def _strike(self, method: str, chat_id: int | None) -> InjectedFault | None:
        fault = next((fault for fault in self._faults if fault.meets(method, chat_id)), None)
        if fault is not None:
            fault.times -= 1
        return fault

    async def _on_download(self, request: web.Request) -> web.Response:
        if request.match_info["token"] != self.token:
            return _error(Refusal(401, "Unauthorized"))
        path = request.match_info["path"]
        for known, data in self._files.values():
            if known == path:
                return web.Response(body=data)
        return _error(Refusal(404, "Not Found"))

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _tell_soon(self) -> None:
        with contextlib.suppress(RuntimeError):  # no loop runs yet: nobody can be waiting either
            task = asyncio.get_running_loop().create_task(self._tell())
            self._notices.add(task)
            task.add_done_callback(self._notices.discard)

    # Updates.

    async def _get_updates(self, params: JsonObject) -> list[JsonObject]:
        if self.webhook is not None:
            raise Refusal(
                409,
                "Conflict: can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first",
            )
        self._poller += 1
        me = self._poller
        self._polls.append(self._clock.time())
        await self._tell()
        offset = int(params.get("offset") or 0)
        if offset < 0:
            self.pending = self.pending[offset:]
        self.pending = [update for update in self.pending if update["update_id"] >= offset]
        if "allowed_updates" in params:
            self._allowed = json_of(params, "allowed_updates") or None
        deadline = time.monotonic() + float(params.get("timeout") or 0)
        while not self._wanted():
            left = deadline - time.monotonic()
            if left <= 0 or self._stopping:
                break
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(left, 1.0))
            if me != self._poller:
                raise Refusal(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                )
        return self._wanted()[: int(params.get("limit") or 100)]

    def _wanted(self) -> list[JsonObject]:
        if self._allowed is not None:
            self.pending = [update for update in self.pending if any(key in self._allowed for key in update)]
        return self.pending

    def _set_webhook(self, params: JsonObject) -> bool:
        if not params.get("url"):
            return self._delete_webhook(params)
        self.webhook = params
        self._allowed = json_of(params, "allowed_updates") or None
        if self._webhook_task is None:
            self._webhook_task = asyncio.create_task(self._push_to_webhook())
        return True

    def _delete_webhook(self, params: JsonObject) -> bool:
        self.webhook = None
        if flag_of(params, "drop_pending_updates"):
            self.pending.clear()
        return True

    async def _push_to_webhook(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                if self.webhook is not None and self._wanted():
                    update = self.pending[0]
                    headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook.get("secret_token", "")}
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.post(self.webhook["url"], json=update, headers=headers) as answer:
                            if answer.ok and self.pending and self.pending[0] is update:
                                self.pending.pop(0)
                                continue
                async with self._changed:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), 0.1)

    # The methods.

    def _get_me(self, _: JsonObject) -> JsonObject:
        return {**self._bot_object(), "can_join_groups": True, "can_read_all_group_messages": False,
                "supports_inline_queries": False}  # fmt: skip

    def _send_message(self, params: JsonObject) -> JsonObject:
        chat = self._addressed(params)
        entities = checked_entities(params)
        text = params.get("text", "")
        check_text(text)
        markup = checked_markup(params)
        topic_id, reply_to = self._placed(chat, params)
        message = self._add(chat, self.bot_id, text, entities, topic_id=topic_id, reply_to=reply_to, markup=markup)
        message.link_preview = json_of(params, "link_preview_options")
        message.fields = {"from": self._bot_object(), "text": text, "entities": entities}
        return self._message_object(message)

    def _send_document(self, params: JsonObject) -> JsonObject:
        chat = self._addressed(params)
        topic_id, reply_to = self._placed(chat, params)
        source = params.get("document", "")
        upload = params.get(source.removeprefix("attach://")) if isinstance(source, str) else source
        if not isinstance(upload, Upload):
            raise bad("wrong file identifier/HTTP URL specified")
        if not upload.data:
            raise bad("file must be non-empty")
        caption = params.get("caption", "")
        message = self._add(
            chat, self.bot_id, caption, [], topic_id=topic_id, reply_to=reply_to, markup=checked_markup(params)
        )
        message.document = upload.data
        file_id = self.add_file(upload.data, f"documents/{upload.name}")
        shown = {"file_id": file_id, "file_unique_id": f"u{file_id}", "file_name": upload.name,
                 "file_size": len(upload.data)}  # fmt: skip
        message.fields = {"from": self._bot_object(), "document": shown}
        if caption:
            message.fields["caption"] = caption
        return self._message_object(message)

    def _send_message_draft(self, params: JsonObject) -> bool:
        chat = self._addressed(params)
        if chat.type != "private":
            raise bad("method is available only in private chats")
        draft_id = int(params.get("draft_id") or 0)
        if draft_id == 0:
            raise bad("draft_id must be non-zero")
        text = params.get("text", "")
        checked_entities(params)
        if units(text) > TEXT_LIMIT:
            raise bad("message is too long")
        topic = params.get("message_thread_id")
        chat.drafts.append(
            Draft(self._clock.time(), draft_id, text, int(topic) if topic else None, flag_of(params, "can_stop"))
        )
        return True

    def _edit_message_text(self, params: JsonObject) -> JsonObject:
        message = self._own(params, "edit")
        entities = checked_entities(params)
        text = params.get("text", "")
        check_text(text)
        markup = checked_markup(params)
        if (text.strip(), entities, markup) == (message.text.strip(), message.entities, message.markup):
            raise not_modified()
        message.become(self._clock.time(), text, entities, markup)
        message.link_preview = json_of(params, "link_preview_options")
        message.fields |= {"text": text, "entities": entities, "edit_date": int(self._clock.time())}
        return self._message_object(message)

    def _edit_message_reply_markup(self, params: JsonObject) -> JsonObject:
        message = self._own(params, "edit")
        markup = checked_markup(params)
        if markup == message.markup:
            raise not_modified()
        message.become(self._clock.time(), message.text, message.entities, markup)
        return self._message_object(message)

    def _delete_message(self, params: JsonObject) -> bool:
        chat = self._addressed(params)
        message = chat.message(int(params.get("message_id") or 0))
        if message is None:
            raise bad("message to delete not found")
        self._may_delete(chat, message)
        message.deleted = True
        return True

    def _delete_messages(self, params: JsonObject) -> bool:
        chat = self._addressed(params)
        ids: list[int] = json_of(params, "message_ids") or []
        if not 1 <= len(ids) <= 100:
            raise bad("message identifiers are not specified")
        # Those that are gone already are passed over.
        messages = [message for message_id in ids if (message := chat.message(message_id)) is not None]
        for message in messages:
            self._may_delete(chat, message)
        for message in messages:
            message.deleted = True
        return True

    def _may_delete(self, chat: Chat, message: Message) -> None:
        if not message.by_bot and chat.type != "private" and "can_delete_messages" not in chat.bot_rights:
            raise bad("message can't be deleted")

    def _restrict_chat_member(self, params: JsonObject) -> bool:
        chat, user_id = self._restrictable(params)
        if chat.type != "supergroup":
            raise bad("method is available only for supergroups")
        permissions: JsonObject = json_of(params, "permissions") or {}
        if permissions.get("can_send_messages"):
            chat.muted.pop(user_id, None)
        else:
            chat.muted[user_id] = int(params.get("until_date") or 0)
        return True

    def _ban_chat_member(self, params: JsonObject) -> bool:
        chat, user_id = self._restrictable(params)
        chat.banned.add(user_id)
        return True

    def _unban_chat_member(self, params: JsonObject) -> bool:
        chat, user_id = self._restrictable(params)
        chat.banned.discard(user_id)
        return True

    def _restrictable(self, params: JsonObject) -> tuple[Chat, int]:
        chat, user_id = self._addressed(params), int(params.get("user_id") or 0)
        if "can_restrict_members" not in chat.bot_rights:
            raise bad("not enough rights to restrict/unrestrict chat member")
        if user_id in chat.admin_ids:
            raise bad("user is an administrator of the chat")
        return chat, user_id

    def _ban_chat_sender_chat(self, params: JsonObject) -> bool:
        chat = self._addressed(params)
        sender_id = int(params.get("sender_chat_id") or 0)
        if "can_restrict_members" not in chat.bot_rights:
            raise bad("not enough rights to restrict/unrestrict chat member")
        if sender_id in {chat.id, chat.linked_channel}:
            raise bad("PARTICIPANT_ID_INVALID")
        chat.banned.add(sender_id)
        return True

    def _unban_chat_sender_chat(self, params: JsonObject) -> bool:
        self._addressed(params).banned.discard(int(params.get("sender_chat_id") or 0))
        return True

    def _get_chat(self, params: JsonObject) -> JsonObject:
        chat = self._addressed(params)
        linked = {} if chat.linked_channel is None else {"linked_chat_id": chat.linked_channel}
        shown = {**self._chat_object(chat), **linked, "accent_color_id": 0, "max_reaction_count": 11}
        return {**shown, "accepted_gift_types": _NO_GIFTS}

    def _send_chat_action(self, params: JsonObject) -> bool:
        self._addressed(params).actions.append((self._clock.time(), params.get("action", "")))
        return True

    def _answer_callback_query(self, params: JsonObject) -> bool:
        query_id = params.get("callback_query_id", "")
        if query_id not in self._queries:
            raise bad("query is too old and response timeout expired or query ID is invalid")
        self._queries.discard(query_id)
        self.callback_answers[query_id] = params
        return True

    def _set_my_commands(self, params: JsonObject) -> bool:
        scope: JsonObject = json_of(params, "scope") or {}
        self.menus[scope.get("type", "default")] = json_of(params, "commands") or []
        return True

    def _get_chat_member(self, params: JsonObject) -> JsonObject:
        chat = self._addressed(params)
        user_id = int(params.get("user_id") or 0)
        rights = chat.bot_rights if user_id == self.bot_id else None
        return self._member_object(user_id, admin_ids=chat.admin_ids, rights=rights)

    def _get_chat_administrators(self, params: JsonObject) -> list[JsonObject]:
        chat = self._addressed(params)
        return [self._member_object(user_id, admin_ids=chat.admin_ids) for user_id in sorted(chat.admin_ids)]

    def _get_file(self, params: JsonObject) -> JsonObject:
        file_id = params.get("file_id", "")
        if file_id not in self._files:
            raise bad("invalid file_id")
        path, data = self._files[file_id]
        return {"file_id": file_id, "file_unique_id": f"u{file_id}", "file_size": len(data), "file_path": path}

    # Common ground of the methods.

    def _addressed(self, params: JsonObject) -> Chat:
        chat_id = addressee(params)
        if chat_id is None:
            raise bad("chat not found")
        chat = self.chat(chat_id)
        left = chat.flooded_until - self._clock.monotonic()
        if left > 0:
            seconds = math.ceil(left)
            raise Refusal(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
        if chat.refusal is not None:
            raise chat.refusal
        return chat

    def _own(self, params: JsonObject, purpose: str) -> Message:
        message = self._addressed(params).message(int(params.get("message_id") or 0))
        if message is None:
            raise bad(f"message to {purpose} not found")
        if not message.by_bot:
            raise bad(f"message can't be {purpose}ed")
        return message

    def _placed(self, chat: Chat, params: JsonObject) -> tuple[int | None, int | None]:
        topic_id = int(params["message_thread_id"]) if params.get("message_thread_id") else None
        if topic_id in chat.gone_topics:
            raise bad("message thread not found")
        if topic_id in chat.closed_topics:
            raise bad("TOPIC_CLOSED")
        reply = json_of(params, "reply_parameters") or {}
        reply_to = reply.get("message_id")
        if reply_to is not None and chat.message(reply_to) is None:
            if not reply.get("allow_sending_without_reply"):
                raise bad("message to be replied not found")
            reply_to = None
        return topic_id, reply_to

    def _add(
        self,
        chat: Chat,
        sender_id: int,
        text: str,
        entities: list[JsonObject],
        *,
        topic_id: int | None = None,
        reply_to: int | None = None,
        markup: JsonObject | None = None,
    ) -> Message:
        now = self._clock.time()
        message = Message(self._next(), chat.id, sender_id, sender_id == self.bot_id, text, now,
                          reply_to=reply_to, topic_id=topic_id)  # fmt: skip
        message.become(now, text, entities, markup)
        chat.messages.append(message)
        return message

    def _next(self) -> int:
        self._counter += 1
        return self._counter

    # Objects as the Bot API shows them.

    def _bot_object(self) -> JsonObject:
        return {"id": self.bot_id, "is_bot": True, "first_name": "Understudy", "username": self.username}

    def _chat_object(self, chat: Chat) -> JsonObject:
        shown: JsonObject = {"id": chat.id, "type": chat.type}
        if chat.type == "private":
            shown["first_name"] = "Ann"
        else:
            shown["title"] = chat.title or f"Group {-chat.id}"
        if chat.type == "supergroup" and any(message.topic_id for message in chat.messages):
            shown["is_forum"] = True
        return shown

    def _message_object(self, message: Message, *, with_reply: bool = True) -> JsonObject:
        chat = self.chat(message.chat_id)
        shown: JsonObject = {"message_id": message.id, "date": int(message.at), "chat": self._chat_object(chat)}
        shown |= message.fields
        if message.topic_id is not None:
            shown |= {"message_thread_id": message.topic_id, "is_topic_message": True}
        if message.markup is not None:
            shown["reply_markup"] = message.markup
        target = chat.message(message.reply_to) if message.reply_to is not None and with_reply else None
        if target is not None:
            shown["reply_to_message"] = self._message_object(target, with_reply=False)
        return shown

    def _member_object(self, user_id: int, *, admin_ids: set[int], rights: set[str] | None = None) -> JsonObject:
        is_bot = user_id == self.bot_id
        user = self._bot_object() if is_bot else {"id": user_id, "is_bot": False, "first_name": f"User {user_id}"}
        if user_id not in admin_ids:
            return {"status": "member", "user": user}
        granted = {right: rights is None or right in rights for right in _ADMIN_RIGHTS}
        return {"status": "administrator", "user": user, "can_be_edited": False, "is_anonymous": False, **granted}

    # The control endpoint, for tries by hand.

    async def _on_say(self, request: web.Request) -> web.Response:
        said = await request.json()
        for media in ("photo", "document"):
            if said.get(media):
                said[media] = base64.b64decode(said[media])
        message = self.user_says(said.pop("text", ""), said.pop("chat_id", 7), **said)
        return web.json_response({"message_id": message.id})

    async def _on_press(self, request: web.Request) -> web.Response:
        pressed = await request.json()
        messages = self.chat(pressed["chat_id"]).answers()
        if "message_id" in pressed:
            messages = [message for message in messages if message.id == pressed["message_id"]]
        shown = [message for message in messages if message.buttons]
        if not shown:
            return web.json_response({"error": "no message with buttons"}, status=404)
        try:
            query_id = self.presses(shown[-1], pressed["button"], pressed.get("user_id"))
        except AssertionError as error:
            return web.json_response({"error": str(error)}, status=404)
        return web.json_response({"callback_query_id": query_id})

    async def _on_fail(self, request: web.Request) -> web.Response:
        scripted = await request.json()
        self.fail(scripted.pop("method"), scripted.pop("times", 1), **scripted)
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
            for chat in self.chats.values()
        ]
        return web.json_response(shown)

    async def _on_calls(self, _: web.Request) -> web.Response:
        shown = [{"method": call.method, "at": call.at, "status": call.status} for call in self.calls]
        return web.json_response(shown)


_ADMIN_RIGHTS = (
    "can_manage_chat", "can_delete_messages", "can_manage_video_chats", "can_restrict_members", "can_promote_members",
    "can_change_info", "can_invite_users", "can_post_stories", "can_edit_stories", "can_delete_stories",
    "can_send_welcome_messages",
)  # fmt: skip
_NO_GIFTS = dict.fromkeys(
    ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels"), False
)


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
        print(f"TELEGRAM_API_BASE_URL={server.url} TELEGRAM_BOT_TOKEN={token}", flush=True)  # noqa: T201 - it is a command
        await asyncio.Event().wait()


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A Bot API server on loopback")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--token", default=TOKEN)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(options.port, options.token))


if __name__ == "__main__":
    main()
