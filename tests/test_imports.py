"""Import cost: heavy libraries are loaded only by the surface that uses them. Layers are checked by import-linter."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("module", "unloaded"),
    [
        ("bot.__main__", ("aiogram", "pydantic_ai", "sqlalchemy", "redis")),  # a wrong setting is reported at once
        ("bot.composition.console", ("aiogram", "dbos", "aiohttp")),  # aiogram alone takes seconds
        ("bot.check", ("aiogram", "dbos", "aiohttp")),
        ("bot.train", ("aiogram", "dbos", "aiohttp")),
        ("bot.composition.services", ("aiogram", "dbos", "aiohttp", "openai", "anthropic")),
        # Libraries of capabilities that are off; those that read files are loaded in children only.
        (
            "bot.composition.telegram",
            (
                "openai",
                "anthropic",
                "aiohttp.web",
                "bot.web.server",
                "bot.composition.web_server",
                "bot.telegram.ingress.webhook",
                "fastmcp",
                "mcp",
                "jsonschema",
                "pydantic_ai.profiles.google",
                "av",
                "pypdfium2",
                "mammoth",
                "python_calamine",
                "services.files.documents",
                "services.files.sounds",
                "services.llm.capabilities.transcription",
                "services.llm.capabilities.speech",
                "services.llm.capabilities.images",
                "services.llm.capabilities.embeddings",
            ),
        ),
        ("services.inbox.inbox", ("dbos", "aiogram", "pydantic_ai")),
    ],
)
def test_import_leaves_heavy_libraries_unloaded(module: str, unloaded: tuple[str, ...]) -> None:
    # As the daemon imports it: building aiogram's types takes seconds.
    defer = "from bot.telegram.api.deferred_types import import_aiogram; import_aiogram(); " * ("telegram" in module)
    code = f"{defer}import json, sys, {module}; print(json.dumps([*sys.modules]))"
    loaded = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))
    assert module.partition(".")[0] in loaded
    assert not set(unloaded) & set(loaded)
