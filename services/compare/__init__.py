"""Comparison of two models: which two, their answers side by side, and the votes about them.

Votes of the chat, of other programs (`/battleground`) and thumbs under answers are in one store. It names people by
keyed hashes only, and models by `<provider>/<model>`.
"""
