"""Faults that tests inject into the fake Bot API server. A method may be "*"."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from core.clock import Clock
from tests.support.fake_telegram.chats import Refusal
from tests.support.fake_telegram.state import TelegramState


@dataclass
class InjectedFault:
    """A scripted fault: `times` counts down to zero."""

    method: str
    times: float
    chat_id: int | None
    before: bool
    act: Callable[[], web.StreamResponse] | None = None
    refusal: Refusal | None = None
    gate: asyncio.Event | None = None

    def matches(self, method: str, chat_id: int | None) -> bool:
        return self.times > 0 and self.method in (method, "*") and self.chat_id in (None, chat_id)

    def end(self) -> None:
        """Ends the fault and releases the calls that wait at its gate."""
        self.times = 0
        if self.gate is not None:
            self.gate.set()


class ConnectionDropped(Exception):
    """Closes the connection without an answer."""


class FaultInjection(TelegramState):
    """Injects faults into the next calls."""

    def __init__(self, *, token: str, clock: Clock | None) -> None:
        super().__init__(token=token, clock=clock)
        self._faults: list[InjectedFault] = []

    def fail(
        self,
        method: str,
        times: float = 1,
        *,
        status: int = 500,
        description: str = "Internal Server Error",
        retry_after: int | None = None,
        migrate_to: int | None = None,
        chat_id: int | None = None,
    ) -> InjectedFault:
        """Answers the next calls with an error, without carrying them out."""
        parameters = {"retry_after": retry_after, "migrate_to_chat_id": migrate_to}
        refusal = Refusal(status, description, **{key: value for key, value in parameters.items() if value is not None})
        return self._inject(InjectedFault(method, times, chat_id, before=True, refusal=refusal))

    def drop(
        self, method: str, times: float = 1, *, executed: bool = True, chat_id: int | None = None
    ) -> InjectedFault:
        """Closes the connection without an answer, after (or before) the call was carried out."""

        def act() -> web.StreamResponse:
            raise ConnectionDropped

        return self._inject(InjectedFault(method, times, chat_id, before=not executed, act=act))

    def garble(
        self, method: str, times: float = 1, *, executed: bool = True, body: str = "<html>oops</html>"
    ) -> InjectedFault:
        """Answers with a 200 that no client can decode."""
        return self._inject(
            InjectedFault(method, times, None, before=not executed, act=lambda: web.Response(text=body))
        )

    def hold(self, method: str, times: float = 1, *, chat_id: int | None = None) -> InjectedFault:
        """Holds the next calls until `end()` of the returned fault is called, then carries them out."""
        return self._inject(InjectedFault(method, times, chat_id, before=True, gate=asyncio.Event()))

    def reject_as_flood(self, method: str, retry_after: int) -> InjectedFault:
        """Answers the next call of a method with a 429."""
        description = f"Too Many Requests: retry after {retry_after}"
        return self.fail(method, status=429, description=description, retry_after=retry_after)

    def flood(self, chat_id: int, seconds: float) -> None:
        """Answers every call in a chat with 429 for this long, by the server's clock."""
        self.chat(chat_id).flooded_until = self._clock.monotonic() + seconds

    def second_poller(self, times: float = 1) -> InjectedFault:
        """Answers polls as if another instance polled with the same token."""
        return self.fail(
            "getUpdates",
            times,
            status=409,
            description="Conflict: terminated by other getUpdates request; "
            "make sure that only one bot instance is running",
        )

    def block(self, chat_id: int, description: str = "bot was blocked by the user") -> None:
        """Answers every call in a chat with 403 from now on."""
        self.chat(chat_id).refusal = Refusal(403, f"Forbidden: {description}")

    def _inject(self, fault: InjectedFault) -> InjectedFault:
        self._faults.append(fault)
        return fault

    def _next_fault(self, method: str, chat_id: int | None) -> InjectedFault | None:
        fault = next((fault for fault in self._faults if fault.matches(method, chat_id)), None)
        if fault is not None:
            fault.times -= 1
        return fault
