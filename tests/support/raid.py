"""A raid over a fake Bot API that allows 20 messages a minute: joins and adverts within a minute of a moved clock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, cast

from bot.telegram.api.group_admins import GroupAdmins
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.moderation.cards import IncidentCards
from bot.telegram.moderation.gate_messages import GateMessages
from bot.telegram.moderation.sanctions import GroupSanctions
from core.db.database import Database
from core.i18n import Texts
from core.redis.client import open_redis
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.newcomers.newcomers import Join
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.moderation_harness import ADMIN, GROUP, SCAM, ModerationHarness, RecordingGroup, ScriptedJudge

CAMPAIGNS = (
    "Earn 500 dollars a day from home, no experience needed, write to @fast_money_anna",
    "Лучшее онлайн казино, бонус за регистрацию каждому новичку, забирай по ссылке https://t.me/+CasinoBonus",
)


class TelegramGroup:
    """All ports of moderation to one group, over the Bot API."""

    def __init__(self, traffic: Traffic, delivery: Delivery, clock: ManualClock) -> None:
        admins = GroupAdmins(traffic.bot, clock)
        cards = IncidentCards(delivery, admins, Texts(strict=True))
        gate = GateMessages(cast("Any", traffic.bot), delivery, cards, Texts(strict=True))
        self._parts = (GroupSanctions(delivery, admins), cards, gate, admins)

    def __getattr__(self, name: str) -> Any:
        return getattr(next(part for part in self._parts if hasattr(part, name)), name)


class Raid:
    """Plays joins and adverts, and notes how long each advert stood.

    Args:
        harness: moderation over a `TelegramGroup`.
    """

    def __init__(self, harness: ModerationHarness, server: TelegramServer) -> None:
        # Without the flush after each call: the reporter tells the admins in the background, at its own pace.
        self.pipeline, self.newcomers = harness.pipeline._part, harness.newcomers._part
        self.harness, self.server = harness, server
        self.stood: list[float] = []

    async def join(self, member: int) -> None:
        await self.newcomers.join(Join(GROUP, member, member, self.harness.clock.now()), self.harness.settings)

    async def press(self, member: int) -> None:
        await self.newcomers.gate.press(GROUP, member)

    async def advertise(self, number: int, member: int) -> None:
        text = f"{CAMPAIGNS[number % 2]} {number}"
        said = self.server.user_says(text, GROUP, user_id=member)
        began = self.harness.clock.monotonic()
        message = replace(self.harness.message(text, said.id), author=Author(member, AuthorKind.USER, f"User {member}"))
        await self.pipeline.handle(message, self.harness.settings)
        assert said.deleted
        self.stood.append(self.harness.clock.monotonic() - began)

    async def play(self, joins: int, raiders: int, adverts: int) -> None:
        """Plays a minute: people join, the first of them press the button at once, and post adverts side by side."""
        clock = self.harness.clock
        events = [(60 * number / joins, partial(self.join, 1000 + number)) for number in range(joins)]
        events += [(60 * (number + 0.5) / joins, partial(self.press, 1000 + number)) for number in range(raiders)]
        events += [
            (12 + 48 * number / adverts, partial(self.advertise, number, 1000 + number % raiders))
            for number in range(adverts)
        ]
        began, running = clock.monotonic(), set[asyncio.Task[None]]()
        for at, event in sorted(events, key=lambda each: each[0]):
            await clock.advance(max(began + at - clock.monotonic(), 0))
            running.add(asyncio.create_task(event()))
            # Steps that do not wait for the clock end in real time.
            _, running = await asyncio.wait(running, timeout=0.5)
        await asyncio.gather(*running)

    async def wait_told(self) -> None:
        """Moves the clock until the cards tell of every advert, and on for half a minute, in which more may be sent."""
        left = 100
        while sum(self.told()) < len(self.stood):
            left -= 1
            assert left, "the admins are not told"
            await self._pass_time()
        for _ in range(6):
            await self._pass_time()

    def told(self) -> list[int]:
        """Returns the number of deleted messages that each card tells of."""
        cards = [text for text in self.server.chat(GROUP).texts() if text.startswith("Done")]
        return [int(text.partition("messages")[0].split()[-1]) for text in cards]

    async def _pass_time(self) -> None:
        await self.harness.clock.advance(5)
        await asyncio.sleep(0.01)


@asynccontextmanager
async def open_raid(
    database: Database, traffic: Traffic, server: TelegramServer, clock: ManualClock
) -> AsyncIterator[Raid]:
    """Opens a group in which everything is spam."""
    chat = server.chat(GROUP)
    chat.type, chat.admin_ids, chat.allowed_a_minute = "supergroup", {ADMIN, server.bot_id}, 20
    judge = ScriptedJudge()
    judge.default = SCAM
    group = cast("RecordingGroup", TelegramGroup(traffic, Delivery(traffic.bot, clock), clock))
    harness = ModerationHarness(database, open_redis(None), clock, group, judge)
    await harness.groups.change(harness.settings)
    reporting = asyncio.create_task(harness.reporter.run())
    try:
        yield Raid(harness, server)
    finally:
        reporting.cancel()
        with suppress(asyncio.CancelledError):
            await reporting
