"""The durable inbox: what came in is stored, done in order within its lane, and done again after a crash."""
