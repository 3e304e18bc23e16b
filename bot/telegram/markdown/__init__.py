"""Renders Markdown as Telegram message entities and splits it into messages."""
