"""Methods of the fake Bot API server, as strict as Telegram's about their parameters."""

import math
from collections.abc import Callable
from typing import Any

from core.clock import Clock
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
    not_modified,
    units,
)
from tests.support.fake_telegram.state import TelegramState

Method = Callable[[JsonObject], Any]
_NO_GIFTS = dict.fromkeys(
    ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription", "gifts_from_channels"), False
)


_PERMISSIONS = (
    "can_send_messages", "can_send_audios", "can_send_documents", "can_send_photos", "can_send_videos",
    "can_send_video_notes", "can_send_voice_notes", "can_send_polls", "can_send_other_messages",
    "can_add_web_page_previews", "can_react_to_messages", "can_edit_tag", "can_change_info", "can_invite_users",
    "can_pin_messages", "can_manage_topics",
)  # fmt: skip


class BotApiMethods(TelegramState):
    """Carries out calls: `_methods` by lower-case name."""

    def __init__(self, *, token: str, clock: Clock | None) -> None:
        super().__init__(token=token, clock=clock)
        self._methods: dict[str, Method] = {
            "getme": self._get_me,
            "sendmessage": self._send_message,
            "senddocument": self._send_document,
            "sendphoto": self._send_photo,
            "sendvoice": self._send_voice,
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
            "approvechatjoinrequest": self._approve_chat_join_request,
            "sendchataction": self._send_chat_action,
            "answercallbackquery": self._answer_callback_query,
            "setmycommands": self._set_my_commands,
            "setmessagereaction": self._set_message_reaction,
            "editforumtopic": lambda _: True,
            "answerguestquery": lambda params: {"inline_message_id": f"inline-{params['guest_query_id']}"},
            "getchat": self._get_chat,
            "getchatmember": self._get_chat_member,
            "getchatadministrators": self._get_chat_administrators,
            "getfile": self._get_file,
        }

    def _get_me(self, _: JsonObject) -> JsonObject:
        return {**self._bot_object(), "can_join_groups": True, "can_read_all_group_messages": False,
                "supports_inline_queries": False}  # fmt: skip

    def _send_message(self, params: JsonObject) -> JsonObject:
        chat = self._addressed(params)
        self._count_message(chat)
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

    def _send_photo(self, params: JsonObject) -> JsonObject:
        """Sends a photo: as a document, but shown as one."""
        sent = self._send_document({**params, "document": params.get("photo", "")})
        sent.pop("document")
        size = {"file_id": "photo", "file_unique_id": "uphoto", "width": 90, "height": 90}
        return {**sent, "photo": [size]}

    def _send_voice(self, params: JsonObject) -> JsonObject:
        """Sends a voice message: as a document, but shown as one."""
        sent = self._send_document({**params, "document": params.get("voice", "")})
        sent.pop("document")
        return {**sent, "voice": {"file_id": "voice", "file_unique_id": "uvoice", "duration": 1}}

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

    def _edit_message_text(self, params: JsonObject) -> JsonObject | bool:
        if "inline_message_id" in params:
            return True
        message = self._own(params, "edit")
        self._count_message(self._addressed(params))
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
        # Messages that are gone already are skipped.
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
        until = int(params.get("until_date") or 0)
        chat.muted.pop(user_id, None)
        chat.restricted.pop(user_id, None)
        if not permissions.get("can_send_messages"):
            chat.muted[user_id] = until
        elif not all(permissions.values()):
            chat.restricted[user_id] = {**permissions, "until_date": until}
        return True

    def _ban_chat_member(self, params: JsonObject) -> bool:
        chat, user_id = self._restrictable(params)
        chat.banned.add(user_id)
        return True

    def _unban_chat_member(self, params: JsonObject) -> bool:
        chat, user_id = self._restrictable(params)
        chat.banned.discard(user_id)
        return True

    def _approve_chat_join_request(self, params: JsonObject) -> bool:
        chat, user_id = self._addressed(params), int(params.get("user_id") or 0)
        if user_id not in chat.join_requests:
            raise bad("HIDE_REQUESTER_MISSING")
        chat.join_requests.discard(user_id)
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

    def _set_message_reaction(self, params: JsonObject) -> bool:
        message = self._addressed(params).message(int(params["message_id"]))
        if message is None:
            raise bad("message to react not found")
        message.reactions.append([each["emoji"] for each in json_of(params, "reaction") or []])
        return True

    def _set_my_commands(self, params: JsonObject) -> bool:
        scope: JsonObject = json_of(params, "scope") or {}
        if scope.get("type") == "chat" and (refusal := self.chat(scope["chat_id"]).refusal) is not None:
            raise refusal
        self.menus[scope.get("type", "default")] = json_of(params, "commands") or []
        return True

    def _get_chat_member(self, params: JsonObject) -> JsonObject:
        chat = self._addressed(params)
        user_id = int(params.get("user_id") or 0)
        rights = chat.bot_rights if user_id == self.bot_id else None
        member = self._member_object(user_id, admin_ids=chat.admin_ids, rights=rights)
        if user_id in chat.banned:
            return {**member, "status": "kicked", "until_date": 0}
        if user_id in chat.muted:
            return {**member, **_restricted({"until_date": chat.muted[user_id]})}
        return {**member, **_restricted(chat.restricted[user_id])} if user_id in chat.restricted else member

    def _get_chat_administrators(self, params: JsonObject) -> list[JsonObject]:
        chat = self._addressed(params)
        return [self._member_object(user_id, admin_ids=chat.admin_ids) for user_id in sorted(chat.admin_ids)]

    def _get_file(self, params: JsonObject) -> JsonObject:
        file_id = params.get("file_id", "")
        if file_id not in self._files:
            raise bad("invalid file_id")
        path, data = self._files[file_id]
        return {"file_id": file_id, "file_unique_id": f"u{file_id}", "file_size": len(data), "file_path": path}

    # Shared by the methods.

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

    def _count_message(self, chat: Chat) -> None:
        """Refuses the messages and edits beyond those that a chat is allowed in a minute."""
        if chat.allowed_a_minute is None:
            return
        now = self._clock.monotonic()
        while chat.accepted and chat.accepted[0] <= now - 60:
            chat.accepted.popleft()
        if len(chat.accepted) >= chat.allowed_a_minute:
            seconds = math.ceil(chat.accepted[0] + 60 - now)
            raise Refusal(429, f"Too Many Requests: retry after {seconds}", retry_after=seconds)
        chat.accepted.append(now)

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


def _restricted(fields: JsonObject) -> JsonObject:
    """Returns the fields of a restricted member; a right that is not granted is denied."""
    denied = dict.fromkeys(_PERMISSIONS, False)
    return {"status": "restricted", "is_member": True, **denied, **fields}
