"""Thresholds of the local spam score, 0 to 100.

Figures from cross-validation on the starter set (480 spam, 1,789 ham of 41 groups), docs/moderation-score.md.
"""

HIGH = 70
"""Sends a message to the judge. Reached by 86 % of the spam and by 18 of the ham."""
VERY_HIGH = 90
"""With other signs, deletes while no model is reachable. Reached by two thirds of the spam and 3 of the ham."""
