"""Conversations: one turn, its history, what it remembers."""
