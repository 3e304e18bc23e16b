"""Who gave a response: a stamp in its metadata, which is kept in the history and never sent to a model."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_ai.messages import ModelMessage, ModelResponse

KEY = "understudy"


class Provenance(BaseModel, frozen=True):
    """Who answered a request.

    Args:
        provider: its id.
        model: the model it was asked for.
        failed: who was asked before and did not answer, with the reason.
        blind: whether the request had an image that this model does not see.
    """

    provider: str
    model: str
    failed: tuple[tuple[str, str], ...] = ()
    blind: bool = False


_STAMP = TypeAdapter(Provenance)


def with_provenance(metadata: dict[str, Any] | None, stamp: Provenance) -> dict[str, Any]:
    """The metadata of a response with the stamp in it."""
    return {**(metadata or {}), KEY: stamp.model_dump()}


def last_provenance(messages: Sequence[ModelMessage]) -> Provenance | None:
    """The stamp of the newest response among the messages, if it has one."""
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            try:
                return _STAMP.validate_python((message.metadata or {}).get(KEY))
            except ValidationError:
                return None
    return None
