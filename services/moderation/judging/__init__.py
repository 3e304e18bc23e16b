"""LLM verdicts: prompt, budget, consent, cache."""
