"""Blame for a failure, and the ways that a request may still try."""
