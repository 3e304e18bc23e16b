"""Persistent moderation state: incidents, members, counts, reports."""
