"""Limits per person and group: rates of messages, and turns that run at once, served round robin."""
