"""Thresholds of the local spam score, 0 to 100. docs/moderation-score.md has the figures."""

HIGH = 70
"""From here on a message is worth a judge's look: of hard cases it finds four fifths, and one in twenty is innocent."""
VERY_HIGH = 90
"""From here on hardly any is innocent, and half of the spam is found."""
