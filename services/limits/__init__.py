"""Limits per person and group: rates of what comes in, and turns that run at once, served round robin."""
