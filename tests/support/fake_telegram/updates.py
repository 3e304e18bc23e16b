"""Delivery of updates by the fake Bot API server: long polling and webhook."""

import asyncio
import contextlib
import time

import aiohttp

from core.clock import Clock
from tests.support.fake_telegram.chats import JsonObject, Refusal, flag_of, json_of
from tests.support.fake_telegram.methods import BotApiMethods


class UpdateDelivery(BotApiMethods):
    """Delivers pending updates to polls, or to a webhook while one is set."""

    def __init__(self, *, token: str, clock: Clock | None) -> None:
        super().__init__(token=token, clock=clock)
        self._webhook_task: asyncio.Task[None] | None = None
        self._methods |= {
            "setwebhook": self._set_webhook,
            "deletewebhook": self._delete_webhook,
            "getwebhookinfo": self._get_webhook_info,
        }

    async def _get_updates(self, params: JsonObject) -> list[JsonObject]:
        if self.webhook is not None:
            raise Refusal(
                409,
                "Conflict: can't use getUpdates method while webhook is active; "
                "use deleteWebhook to delete the webhook first",
            )
        self._poller += 1
        me = self._poller
        self._polls.append(self._clock.time())
        await self._notify()
        offset = int(params.get("offset") or 0)
        if offset < 0:
            self.pending = self.pending[offset:]
        self.pending = [update for update in self.pending if update["update_id"] >= offset]
        if "allowed_updates" in params:
            self._allowed = json_of(params, "allowed_updates") or None
        deadline = time.monotonic() + float(params.get("timeout") or 0)
        while not self._wanted():
            left = deadline - time.monotonic()
            if left <= 0 or self._stopping:
                break
            async with self._changed:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(left, 1.0))
            if me != self._poller:
                raise Refusal(
                    409,
                    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running",
                )
        return self._wanted()[: int(params.get("limit") or 100)]

    def _wanted(self) -> list[JsonObject]:
        if self._allowed is not None:
            self.pending = [update for update in self.pending if any(key in self._allowed for key in update)]
        return self.pending

    def _set_webhook(self, params: JsonObject) -> bool:
        if not params.get("url"):
            return self._delete_webhook(params)
        self.webhook = params
        self._allowed = json_of(params, "allowed_updates") or None
        if self._webhook_task is None:
            self._webhook_task = asyncio.create_task(self._push_to_webhook())
        return True

    def _delete_webhook(self, params: JsonObject) -> bool:
        self.webhook = None
        if flag_of(params, "drop_pending_updates"):
            self.pending.clear()
        return True

    def _get_webhook_info(self, _: JsonObject) -> JsonObject:
        url = (self.webhook or {}).get("url", "")
        return {"url": url, "has_custom_certificate": False, "pending_update_count": len(self.pending)}

    async def _push_to_webhook(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                if self.webhook is not None and self._wanted():
                    update = self.pending[0]
                    headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook.get("secret_token", "")}
                    with contextlib.suppress(aiohttp.ClientError):
                        async with session.post(self.webhook["url"], json=update, headers=headers) as answer:
                            if answer.ok and self.pending and self.pending[0] is update:
                                self.pending.pop(0)
                                continue
                async with self._changed:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), 0.1)

    async def _stop_webhook(self) -> None:
        if self._webhook_task is not None:
            self._webhook_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._webhook_task
            self._webhook_task = None
