"""Judging by a model: prompt, consent, budget and cache."""
