"""Redis clients and the helpers that keep a slow Redis off the request path."""
