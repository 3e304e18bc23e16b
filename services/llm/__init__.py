"""Provider fallback service, and the models that go through it. A script begins with `open_llm`."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.llm.library import open_llm

__all__ = ["open_llm"]


def __getattr__(name: str) -> object:
    """Imports the library on first use: the modules of this package are imported without it."""
    if name == "open_llm":
        from services.llm.library import open_llm

        return open_llm
    raise AttributeError(name)
