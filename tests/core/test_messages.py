"""Message values and their identifiers."""

from core.messages import ConversationKey, Surface, chat_ref, user_ref


def test_references_name_the_surface_and_the_id() -> None:
    """Both are stored: preferences, notes, quotas and usage are found by them."""
    assert chat_ref(Surface.TELEGRAM, -100123) == "telegram:-100123"
    assert user_ref(Surface.CONSOLE, 1) == "console:1"


def test_conversations_of_all_topics_share_the_reference_of_their_chat() -> None:
    assert {ConversationKey(Surface.TELEGRAM, -5, topic).chat_ref for topic in (0, 7)} == {"telegram:-5"}
