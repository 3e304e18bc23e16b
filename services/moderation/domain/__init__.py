"""Values and ports of moderation."""
