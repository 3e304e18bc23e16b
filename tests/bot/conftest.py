"""Fixtures of the command line's tests."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from core.config.variables import CommonVariables
from core.observability.log import _Handler


@pytest.fixture
def clean_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Runs the test in an empty folder without settings in the environment; restores logging afterwards."""
    monkeypatch.chdir(tmp_path)
    # `main` replaces the hooks; later tests need those of pytest.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    for name in list(os.environ):
        if name in CommonVariables.variable_names() or name.startswith(("OLLAMA_", "OPENAI_", "A_")):
            monkeypatch.delenv(name)
    umask = os.umask(0o022)
    root, services = logging.getLogger(), logging.getLogger("services.llm")
    level = root.level
    yield
    os.umask(umask)
    for handler in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    services.setLevel(logging.NOTSET)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
