"""Conversations: one turn from message to saved answer, thread names, tools."""
