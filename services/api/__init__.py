"""Access of other programs: their tokens, the rights of each token, and its limits."""
