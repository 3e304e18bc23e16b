"""The provenance of a response: metadata that is kept in the history and never sent to a model."""

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_ai.messages import ModelMessage, ModelResponse

KEY = "understudy"


class Provenance(BaseModel, frozen=True):
    """The provider and model of a response.

    Args:
        failed: the providers that failed before, each with its reason.
        blind: the request had an image, and the model has no vision.
        failed_local: the local provider that a remote one replaced.
    """

    provider: str
    model: str
    failed: tuple[tuple[str, str], ...] = ()
    blind: bool = False
    failed_local: str | None = None


_PROVENANCE = TypeAdapter(Provenance)


def with_provenance(metadata: dict[str, Any] | None, provenance: Provenance) -> dict[str, Any]:
    """Returns the metadata of a response with its provenance added."""
    return {**(metadata or {}), KEY: provenance.model_dump()}


def last_provenance(messages: Sequence[ModelMessage]) -> Provenance | None:
    """Returns the provenance of the newest response among the messages, if it has one."""
    for message in reversed(messages):
        if isinstance(message, ModelResponse):
            try:
                return _PROVENANCE.validate_python((message.metadata or {}).get(KEY))
            except ValidationError:
                return None
    return None
