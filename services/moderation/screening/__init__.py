"""Checks that need no model: exemptions, rules, risky features, and the decision to ask the judge."""
