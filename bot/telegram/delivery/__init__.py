"""Outgoing messages: rate limits, retries, idempotency."""
