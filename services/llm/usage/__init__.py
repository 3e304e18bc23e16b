"""Token usage of requests."""
