"""A raid of 300 joins and 200 adverts within a minute, where Telegram allows 20 messages a minute, on a moved clock.

Over a fake Bot API on loopback and SQLite on disk; the judge answers at once.
"""

import asyncio
import logging
import tempfile
import time
from pathlib import Path

import structlog

from core.db.database import Database
from tests.support.clock import ManualClock
from tests.support.fake_telegram.server import TelegramServer
from tests.support.fake_telegram.traffic import Traffic
from tests.support.moderation_harness import GROUP
from tests.support.raid import open_raid

JOINS, RAIDERS, ADVERTS = 300, 50, 200


async def run() -> None:
    """Plays the raid and prints the figures."""
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as directory:
        database = Database(f"sqlite:///{Path(directory) / 'raid.db'}")
        await database.start()
        async with TelegramServer(clock=clock) as server:
            traffic = Traffic(server, clock)
            cpu, began = time.process_time(), clock.monotonic()
            async with open_raid(database, traffic, server, clock) as raid:
                await raid.play(JOINS, RAIDERS, ADVERTS)
                await raid.wait_told()
            cpu, told_s = time.process_time() - cpu, clock.monotonic() - began
            await traffic.close()
            texts = [text.splitlines()[0] for text in server.chat(GROUP).texts()]
            refused = sum(call.status == 429 for call in server.calls)
        await database.close()
    print(f"{JOINS} joins, {ADVERTS} adverts by {RAIDERS} accounts")
    print(f"  deleted                    {len(raid.stood)}, the slowest after {max(raid.stood):.1f} s")
    print(f"  messages in the group      {len(texts)}, the last change after {told_s:.0f} s, refused {refused}")
    for text in texts:
        print(f"    {text}")
    print(f"  CPU, the fake Bot API included: {cpu:.1f} s")


def main() -> None:
    """Measures."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(run())


if __name__ == "__main__":
    main()
