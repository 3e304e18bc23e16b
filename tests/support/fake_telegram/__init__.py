"""Bot API server on loopback."""
