"""Masks secrets of the configuration in everything that goes to a chat."""

from typing import Any

import structlog
from aiogram import Bot
from aiogram.client.session.middlewares.base import BaseRequestMiddleware, NextRequestMiddlewareType
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType
from aiogram.types import BufferedInputFile

from core.observability.redaction import SecretMasker

log = structlog.get_logger()

TEXTS = {"text": "entities", "caption": "caption_entities"}
"""The fields of a method that people read, each with the field of its entities."""


class MaskOutgoingSecrets(BaseRequestMiddleware):
    """Masks secrets of the configuration in the texts and text files of Bot API calls.

    A provider may repeat its key in any of them. Strings that only look like a secret are left alone, since a
    conversation may be about a password.
    """

    def __init__(self, masker: SecretMasker) -> None:
        self._masker = masker

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        """Makes the call; a text that had to be masked goes without its entities, whose offsets no longer hold."""
        changes: dict[str, Any] = {}
        for name, entities in TEXTS.items():
            text = getattr(method, name, None)
            if isinstance(text, str) and (masked := self._masker.known(text)) != text:
                changes |= {name: masked, entities: None} if hasattr(method, entities) else {name: masked}
        document = getattr(method, "document", None)
        if isinstance(document, BufferedInputFile):
            # A long answer goes as a file of its text.
            written = document.data.decode(errors="surrogateescape")
            if (masked := self._masker.known(written)) != written:
                data = masked.encode(errors="surrogateescape")
                changes["document"] = BufferedInputFile(data, document.filename or "file")
        if changes:
            log.error("secret.masked", method=type(method).__name__)
            method = method.model_copy(update=changes)
        return await make_request(bot, method)
