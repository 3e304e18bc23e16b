"""Redis clients, the fail-fast guard for the request path, and notices sent once over all replicas."""
