"""Where something said or chosen holds: a whole chat, with all its topics."""

from core.messages import ConversationKey


def scope_of(key: ConversationKey) -> str:
    """The chat of a conversation, such as `telegram:123`."""
    return f"{key.surface}:{key.chat_id}"
