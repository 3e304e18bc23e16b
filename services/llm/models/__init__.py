"""pydantic-ai models that route each request through the fallback service."""
