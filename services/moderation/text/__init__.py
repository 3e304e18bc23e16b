"""Text normalisation: confusables, invisible characters, links."""
