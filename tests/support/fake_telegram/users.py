"""Actions of the people in the chats of the fake Bot API server."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.support.fake_telegram.chats import JsonObject, Message, natural_entities
from tests.support.fake_telegram.state import TelegramState


class UserActions(TelegramState):
    """Writes, edits and presses buttons for a person; each becomes an update."""

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
        """Sends a message as a person. `extra` is merged into the raw message (stickers, forwards, invalid fields)."""
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
        """Edits a person's message."""
        marks = natural_entities(text)
        message.become(self._clock.time(), text, marks, None)
        field = "caption" if "caption" in message.fields else "text"
        message.fields |= {field: text, "edit_date": int(self._clock.time())}
        message.fields["caption_entities" if field == "caption" else "entities"] = marks
        self.push_update(edited_message=self._message_object(message))

    def presses(self, message: Message, button: str, user_id: int | None = None) -> str:
        """Presses a button, given by its label or data, and returns the id of the query."""
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
        """Presses the stop button of the last draft."""
        draft = self.chat(chat_id).drafts[-1]
        stopped = {"chat": self._chat_object(self.chat(chat_id)), "draft_id": draft.draft_id}
        self.push_update(stopped_message_generation=stopped)
