"""Operator actions: audit trail and notices."""
