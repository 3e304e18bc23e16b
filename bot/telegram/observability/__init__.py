"""Metrics, traces and status of the Telegram daemon."""
