"""Telegram: updates come in, answers go out."""
