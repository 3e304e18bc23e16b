"""Rules and features that decide before an LLM is asked."""
