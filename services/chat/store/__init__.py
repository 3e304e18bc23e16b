"""Persistent conversations: threads, turns, transcripts, notes."""
