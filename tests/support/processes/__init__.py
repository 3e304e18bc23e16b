"""Real processes: daemons, databases, proxies."""
