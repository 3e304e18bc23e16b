"""A loopback LLM server and a model builder, closed after each test."""

from tests.wire.conftest import builder, server

__all__ = ["builder", "server"]
