"""Imports aiogram without building its 580 types and methods; each is built when it is first used.

aiogram asks pydantic to defer the building of its types and then has each of them built at the end of its import; its
methods are built as they are imported. That takes 2.7 s of CPU and 100 MiB, for a tenth that a bot uses.

This relies on private details of aiogram 3.31: the import ends with `model_rebuild(_types_namespace=...)` of each type,
the modules import the names of their annotations for type checkers only, and methods derive from `TelegramMethod`.
"""

import importlib
import sys
from typing import Final, cast

from pydantic import BaseModel

_HOOKS: Final = ("model_rebuild", "__pydantic_init_subclass__")


def import_aiogram() -> None:
    """Imports aiogram; without effect where it is imported already."""
    if "aiogram" in sys.modules:
        return
    names: dict[str, object] = {}
    originals = {name: BaseModel.__dict__[name] for name in _HOOKS}

    def postpone(cls: type[BaseModel], **options: object) -> bool | None:
        if not _is_aiogram(cls.__module__):
            return originals["model_rebuild"].__func__(cls, **options)
        names.update(cast("dict[str, object]", options.get("_types_namespace") or {}))
        return None

    def defer_methods(cls: type[BaseModel], **options: object) -> None:
        if cls.__module__ == "aiogram.methods.base" and cls.__name__ == "TelegramMethod":
            cls.model_config["defer_build"] = True  # its subclasses inherit it
        originals["__pydantic_init_subclass__"].__func__(cls, **options)

    try:
        for name, hook in zip(_HOOKS, (postpone, defer_methods), strict=True):
            setattr(BaseModel, name, classmethod(hook))
        importlib.import_module("aiogram")
    finally:
        for name, original in originals.items():
            setattr(BaseModel, name, original)
    # pydantic resolves the annotations of a type by the names of its module.
    for module in [module for name, module in sys.modules.items() if _is_aiogram(name)]:
        vars(module).update({name: value for name, value in names.items() if name not in vars(module)})


def _is_aiogram(module: str) -> bool:
    return module.startswith(("aiogram.types.", "aiogram.methods."))
