"""Text normalisation and link extraction."""
