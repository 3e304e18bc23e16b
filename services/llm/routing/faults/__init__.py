"""Whose fault a failure is, and what the request may still try."""
