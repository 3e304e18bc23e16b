"""Imports aiogram without building its 580 types and methods; each is built when it is first used.

aiogram asks pydantic to defer the building of its types and then has each of them built at the end of its import; its
methods are built as they are imported. That takes 2.7 s of CPU and 100 MiB, for a tenth that a bot uses.

This relies on private details of aiogram 3.31: the import ends with `model_rebuild(_types_namespace=...)` of each type,
the modules import the names of their annotations for type checkers only, and methods derive from `TelegramMethod`.
"""

import importlib
import inspect
import re
import sys
from collections.abc import Mapping
from typing import Final, cast

from pydantic import BaseModel

_HOOKS: Final = ("model_rebuild", "__pydantic_init_subclass__")
_NAME: Final = re.compile(r"[A-Za-z]\w*")


def import_aiogram() -> None:
    """Imports aiogram; without effect where it is imported already."""
    if "aiogram" in sys.modules:
        return
    names: dict[str, object] = {}
    models: list[type[BaseModel]] = []
    originals = {name: BaseModel.__dict__[name] for name in _HOOKS}

    def postpone(cls: type[BaseModel], **options: object) -> bool | None:
        if not _is_aiogram(cls.__module__):
            return originals["model_rebuild"].__func__(cls, **options)
        names.update(cast("dict[str, object]", options.get("_types_namespace") or {}))
        return None

    def defer_methods(cls: type[BaseModel], **options: object) -> None:
        if cls.__module__ == "aiogram.methods.base" and cls.__name__ == "TelegramMethod":
            cls.model_config["defer_build"] = True  # its subclasses inherit it
        if _is_aiogram(cls.__module__):
            models.append(cls)
        originals["__pydantic_init_subclass__"].__func__(cls, **options)

    try:
        for name, hook in zip(_HOOKS, (postpone, defer_methods), strict=True):
            setattr(BaseModel, name, classmethod(hook))
        importlib.import_module("aiogram")
    finally:
        for name, original in originals.items():
            setattr(BaseModel, name, original)
    for model in models:
        _import_annotations(model, names)


def _import_annotations(model: type[BaseModel], names: Mapping[str, object]) -> None:
    """Adds the names of a model's annotations to its module, where pydantic looks for them.

    All 600 names in each of the 630 modules would take 8 MiB.
    """
    module = vars(sys.modules[model.__module__])
    for cls in model.__mro__:
        if _is_aiogram(cls.__module__):
            annotations = " ".join(map(str, inspect.get_annotations(cls).values()))
            wanted = set(_NAME.findall(annotations)) - module.keys()
            module.update({name: names[name] for name in wanted & names.keys()})


def _is_aiogram(module: str) -> bool:
    return module.startswith(("aiogram.types.", "aiogram.methods."))
