"""Telegram side of group moderation: messages, sanctions, cards, settings."""
