"""aiogram with deferred types: the import builds none, an update builds few, and each can be built."""

import json
import subprocess
import sys

import pytest
from aiogram.methods import SendMessage
from aiogram.types import Message, Update

from bot.telegram.api.deferred_types import import_aiogram
from tests.support.fake_telegram.messages import raw

PROBE = """
import json
import sys
import pydantic
rebuild = pydantic.BaseModel.__dict__["model_rebuild"]
from bot.telegram.api.deferred_types import import_aiogram
import_aiogram()
from aiogram import methods, types
every = [getattr(module, name) for module in (methods, types) for name in module.__all__]
models = [each for each in every if isinstance(each, type) and issubclass(each, pydantic.BaseModel)]
built = lambda: sum(each.__pydantic_complete__ for each in models)
before = built()
update = types.Update.model_validate(json.loads(input()))
print(json.dumps({
    "known": len(models),
    "names": sum(len(vars(module)) for name, module in sys.modules.items() if name.startswith("aiogram.")),
    "built by the import": before,
    "built by an update": built() - before,
    "text": update.message.text,
    "pydantic is as it was": pydantic.BaseModel.__dict__["model_rebuild"] is rebuild,
    "unbuildable": [each.__name__ for each in models if each.model_rebuild() is False],
}))
"""


@pytest.mark.integration
def test_import_builds_no_type_and_each_can_be_built() -> None:
    update = json.dumps({"update_id": 1, "message": raw("hello")})
    command = [sys.executable, "-c", PROBE]
    ran = subprocess.run(command, input=update, capture_output=True, text=True, check=True, timeout=60)
    found = json.loads(ran.stdout)
    assert found.pop("known") > 500
    assert found.pop("names") < 20_000  # 300,000 with all of them in each module, which would take 8 MiB
    assert found.pop("built by the import") < 10  # those that defer nothing, such as a response
    assert found.pop("built by an update") < 40
    assert found == {"text": "hello", "pydantic is as it was": True, "unbuildable": []}


def test_types_are_built_when_used() -> None:
    update = Update.model_validate({"update_id": 1, "message": raw("hello")})
    assert isinstance(update.message, Message)
    assert update.message.model_dump(exclude_none=True)["text"] == "hello"
    assert SendMessage(chat_id=1, text="x").model_dump(exclude_unset=True) == {"chat_id": 1, "text": "x"}


def test_second_import_changes_nothing() -> None:
    namespace = dict(vars(sys.modules["aiogram.types.message"]))
    import_aiogram()
    assert vars(sys.modules["aiogram.types.message"]) == namespace
