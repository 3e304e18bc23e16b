"""Delivers one answer to a chat: streaming, buttons, cancellation."""
