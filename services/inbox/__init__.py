"""Durable inbox: stores updates as jobs, runs them in order per lane, and restarts them after a crash."""
