"""HTTP session of the Bot API client: every unusable answer becomes an error of aiogram's own kinds."""

from typing import Any, cast

from aiogram import Bot
from aiogram.client.session.aiohttp import AiohttpSession
from aiogram.client.telegram import TelegramAPIServer
from aiogram.exceptions import ClientDecodeError, TelegramAPIError, TelegramRetryAfter
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType

from bot.telegram.api.json_values import parse_api_json

CONNECTIONS = 512
"""Concurrent Bot API calls; aiogram's default of 100 would also limit concurrent sends."""
LONGEST_RETRY_AFTER_S = 24 * 3600


class ApiSession(AiohttpSession):
    """A session whose calls raise `TelegramAPIError` or `ClientDecodeError` only, whatever the server answers.

    aiogram hands on `"result": null` as a result, and raises plain Python errors for an error without a description or
    a body that is not UTF-8. Callers that handle failed calls would take these for bugs.
    """

    def __init__(self, api: TelegramAPIServer) -> None:
        super().__init__(limit=CONNECTIONS, api=api, json_loads=parse_api_json)

    async def make_request(
        self,
        bot: Bot,
        method: TelegramMethod[TelegramType],
        timeout: int | None = None,  # noqa: ASYNC109 - aiogram's signature
    ) -> TelegramType:
        """Makes a call.

        Raises:
            ClientDecodeError: the body is not UTF-8, or holds no result.
            TelegramAPIError: the call failed.
        """
        try:
            return await super().make_request(bot, method, timeout)
        except UnicodeDecodeError as error:
            raise ClientDecodeError("The body is not UTF-8", error, None) from error

    def check_response(
        self, bot: Bot, method: TelegramMethod[TelegramType], status_code: int, content: str
    ) -> Response[TelegramType]:
        """Returns the response of a call that succeeded."""
        try:
            response = super().check_response(bot, method, status_code, content)
        except TelegramAPIError as error:
            raise _with_bounds(error) from error.__cause__
        except ClientDecodeError:
            raise
        except Exception as error:
            raise ClientDecodeError("The error has no description", error, content) from error
        if response.result is None:
            data: dict[str, Any] = {"ok": True, "result": None}  # Any: JSON
            raise ClientDecodeError("There is no result", ValueError("null"), data)
        return response


def _with_bounds(error: TelegramAPIError) -> TelegramAPIError:
    """Returns an error with a text and a pause that can be waited for."""
    if not isinstance(cast("object", error.message), str):  # aiogram does not check that there is one
        error.message = ""
    if isinstance(error, TelegramRetryAfter):
        error.retry_after = min(max(error.retry_after, 1), LONGEST_RETRY_AFTER_S)
    return error
