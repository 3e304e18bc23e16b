"""Tools of MCP servers: connected in the background, allow-listed, and confirmed by the user if they have side effects.

A call that acts is a row before it is carried out: the user's answer may come after a restart, a repeated job repeats
no act, and one that was cut off by a crash is reported as unknown. The servers' words are data for the model.
"""
