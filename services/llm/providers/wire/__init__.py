"""The HTTP side of the providers: connections, streams read by their standard, repairs of their chunks."""
