"""Incoming updates: polling, webhook, access control, classification into jobs."""
