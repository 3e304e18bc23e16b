"""Access of other programs: their tokens, what each token may ask, and its limits."""
