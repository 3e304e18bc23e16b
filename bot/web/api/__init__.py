"""The endpoint for other programs: OpenAI's HTTP protocol over the providers, their fallback and their budgets."""
