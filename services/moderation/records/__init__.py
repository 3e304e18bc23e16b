"""Database stores of moderation."""
