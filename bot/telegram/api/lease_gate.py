"""Holds the calls to Telegram of a replica whose lease has lapsed."""

from aiogram import Bot
from aiogram.client.session.middlewares.base import BaseRequestMiddleware, NextRequestMiddlewareType
from aiogram.methods import Response, TelegramMethod
from aiogram.methods.base import TelegramType

from services.inbox.lease import ReplicaLease


class LeaseGate(BaseRequestMiddleware):
    """Delays each call until the lease is held; after a takeover for ever, until the caller is cancelled.

    Waiting rather than raising: an outage of the database without a takeover costs a pause and no job.
    """

    def __init__(self, lease: ReplicaLease) -> None:
        self._lease = lease

    async def __call__(
        self, make_request: NextRequestMiddlewareType[TelegramType], bot: Bot, method: TelegramMethod[TelegramType]
    ) -> Response[TelegramType]:
        """Make the call while the lease is held."""
        await self._lease.wait_until_held()
        return await make_request(bot, method)
