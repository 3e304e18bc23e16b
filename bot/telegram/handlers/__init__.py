"""Routers for commands, conversation and buttons."""
