"""The log as written at debug level."""

import io
import logging
from collections.abc import Callable, Iterator

import pytest
import structlog

from core.observability.log import configure_logging


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """The log as it would be written at the most talkative level."""
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    configure_logging("debug", "json", stream=stream)
    yield stream.getvalue
    root.handlers = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
