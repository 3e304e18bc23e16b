"""The web for the model: reads a public page, and searches through a SearXNG server.

Addresses are checked after resolution, on each redirect, and dialled as they were checked; time, bytes on the wire and
after decompression, and text are bounded. The pages' words are data for the model, not instructions.
"""
