"""Provider fallback service, and the models that go through it."""
