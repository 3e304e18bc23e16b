"""State of the fake Bot API server: chats, files, calls and pending updates."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from core.clock import Clock, SystemClock
from tests.support.fake_telegram.chats import Chat, JsonObject, Message, addressee

TOKEN = "42:loopback-token"
POLL_INTERVAL_S = 0.02
T = TypeVar("T")

_ADMIN_RIGHTS = (
    "can_manage_chat", "can_delete_messages", "can_manage_video_chats", "can_restrict_members", "can_promote_members",
    "can_change_info", "can_invite_users", "can_post_stories", "can_edit_stories", "can_delete_stories",
    "can_send_welcome_messages",
)  # fmt: skip


@dataclass(frozen=True)
class Call:
    """A call that a bot made, and its status (0: the connection was closed without an answer)."""

    method: str
    params: JsonObject
    at: float
    status: int
    result: Any = None
    """Its result, if it was carried out."""
    is_cut_off: bool = False
    """True if the caller closed the connection before the answer."""

    @property
    def chat_id(self) -> int | None:
        return addressee(self.params)


class TelegramState:
    """The chats, calls and updates of one bot.

    Args:
        token: every other token is answered 401.
        clock: dates messages and edits, and ends floods.
    """

    def __init__(self, *, token: str, clock: Clock | None) -> None:
        self.token = token
        self.bot_id = int(token.partition(":")[0])
        self.username = "understudy_bot"
        self.calls: list[Call] = []
        self.chats: dict[int, Chat] = {}
        self.callback_answers: dict[str, JsonObject] = {}
        self.menus: dict[str, list[JsonObject]] = {}
        self.unknown_methods: set[str] = set()
        self.webhook: JsonObject | None = None
        self.pending: list[JsonObject] = []
        self._clock: Clock = clock or SystemClock()
        self._files: dict[str, tuple[str, bytes]] = {}
        self._counter = 0
        self._update_id = 100
        self._queries: set[str] = set()
        self._poller = 0
        self._polls: list[float] = []
        self._allowed: list[str] | None = None
        self._changed = asyncio.Condition()
        self._stopping = False
        self._notices: set[asyncio.Task[None]] = set()

    # Read by tests.

    @property
    def polls(self) -> int:
        """The number of getUpdates calls begun, including the one in flight."""
        return self._poller

    def chat(self, chat_id: int) -> Chat:
        """Returns a chat, created on first use: private for a user's id, a supergroup for a negative one."""
        if chat_id not in self.chats:
            kind = "private" if chat_id > 0 else "supergroup"
            self.chats[chat_id] = Chat(chat_id, kind, None if chat_id > 0 else f"Group {-chat_id}")
        return self.chats[chat_id]

    def calls_of(self, method: str, chat_id: int | None = None) -> list[Call]:
        """Returns the calls of a method so far, of one chat if given."""
        return [call for call in self.calls if call.method == method and chat_id in (None, call.chat_id)]

    def polls_begun(self, *, since: float) -> list[float]:
        """Returns the start times of polls since a time; `calls` has only finished ones."""
        return [at for at in self._polls if at >= since]

    async def wait_for(self, predicate: Callable[[], T], timeout: float = 30.0) -> T:
        """Waits until `predicate` returns a true value, and returns that."""
        deadline = time.monotonic() + timeout
        while True:
            if value := predicate():
                return value
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {timeout} s; the server saw\n{self.summary()}")
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), POLL_INTERVAL_S)

    def summary(self) -> str:
        """Returns the last calls and the texts of all chats, for a failed assertion."""
        calls = ", ".join(f"{call.method}:{call.status}" for call in self.calls[-30:])
        chats = "\n".join(f"  {chat.id}: {chat.texts()!r}"[:400] for chat in self.chats.values())
        return f"  calls: {calls}\n{chats}"

    # Changes.

    def push_update(self, **content: object) -> int:
        """Queues an update, valid or not, and returns its id."""
        self._update_id += 1
        self.pending.append({"update_id": self._update_id, **content})
        self._notify_soon()
        return self._update_id

    def add_file(self, data: bytes, path: str) -> str:
        """Adds a file for download and returns its id."""
        file_id = f"file-{self._next()}"
        folder, _, name = path.rpartition("/")
        self._files[file_id] = (f"{folder or 'documents'}/{file_id}-{name}", data)
        return file_id

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

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _notify_soon(self) -> None:
        with contextlib.suppress(RuntimeError):  # without a running loop there is no waiter
            task = asyncio.get_running_loop().create_task(self._notify())
            self._notices.add(task)
            task.add_done_callback(self._notices.discard)

    # Objects of the Bot API.

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
