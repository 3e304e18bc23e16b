"""Values and ports of moderation. Imports no other room of moderation."""
