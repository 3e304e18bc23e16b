"""Texts and tables for operators, shared by Telegram, the console and the web."""
