"""Cost of the durable inbox: CPU per message, throughput, delay until a job starts, memory, idle CPU."""

import argparse
import asyncio
import itertools
import logging
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from benchmarks.measuring import Rounds, Spread, Work, compare, machine, print_table, rss_mib
from benchmarks.processes import llm_process, telegram_process
from bot.composition.handlers import build_worker
from bot.composition.inbox import InboxServices, open_inbox
from bot.composition.moderation import build_moderation
from bot.composition.services import open_services
from bot.composition.telegram import build_eraser
from bot.process import tune_garbage_collection
from bot.telegram.answers.cancellation import ReplyCancellation
from bot.telegram.api.client import create_bot
from bot.telegram.delivery.delivery import Delivery
from bot.telegram.ingress.classification import create_job
from bot.telegram.jobs import UpdateArrived
from bot.telegram.markdown.pages import RenderThread
from core.config.settings import load_settings
from services.chat.reply import ActiveReplies
from services.inbox.job import Job, JobHandler
from tests.support.fake_telegram.server import TOKEN
from tests.support.processes.postgres_server import PostgresServer, missing

BOT = int(TOKEN.partition(":")[0])
NUMBERS = itertools.count(1)
IN_FLIGHT = 3000
CONCURRENT = 20


def _job(lane: str | None = None) -> Job:
    """Create the job of a user's message, in a lane of its own unless one is given."""
    number = next(NUMBERS)
    person = {"id": number, "is_bot": False, "first_name": "Ann", "language_code": "en"}
    chat = {"id": number, "type": "private", "first_name": "Ann"}
    message = {"message_id": number, "date": 1_800_000_000, "chat": chat, "from": person, "text": "Hello?"}
    raw = {"update_id": number, "message": message}
    return create_job(
        BOT, number, lane or f"telegram:{number}:0", UpdateArrived(update=raw), is_limited=lane is not None
    )


class RecordingHandler:
    """Job handler that records when each job starts and finishes.

    Args:
        handler: executes the jobs; None: they do nothing.
        gate: event that every job waits for.
    """

    def __init__(self, handler: JobHandler | None = None, gate: asyncio.Event | None = None) -> None:
        self._handler = handler
        self._gate = gate
        self.started: dict[str, float] = {}
        self.finished: dict[str, asyncio.Event] = {}

    def expect(self, job: Job) -> asyncio.Event:
        """Return the event that is set when a job has finished."""
        return self.finished.setdefault(job.id, asyncio.Event())

    async def handle(self, job: Job) -> None:
        """Execute a job once the gate is open."""
        self.started[job.id] = time.perf_counter()
        if self._gate is not None:
            await self._gate.wait()
        if self._handler is not None:
            await self._handler.handle(job)
        self.expect(job).set()

    def is_outside_fault(self, error: Exception) -> bool:
        """Retry every failure."""
        del error
        return True

    async def notify_failure(self, job: Job, error: Exception | None) -> None:
        """No job may be given up."""
        raise AssertionError(f"{job.id} was given up: {error!r}")


@asynccontextmanager
async def open_bot(
    database: str, telegram: str, llm: str, wrap: Callable[[JobHandler], RecordingHandler]
) -> AsyncGenerator[tuple[InboxServices, RecordingHandler, JobHandler]]:
    """Open the whole bot except its poller.

    Args:
        database: `DATABASE_URL`; empty for SQLite.
        telegram: URL of the Bot API.
        llm: URL of the provider.
        wrap: creates the recording handler from the bot's.
    """
    with tempfile.TemporaryDirectory() as directory:
        settings = load_settings(
            None,
            {
                "TELEGRAM_BOT_TOKEN": TOKEN,
                "TELEGRAM_API_BASE_URL": telegram,
                "AVAILABLE_PROVIDERS": '{"a": ["m"]}',
                "A_BASE_URL": llm,
                "A_API_KEY": "sk-loopback-0123456789",
                "DATA_DIR": directory,
                "STREAM_MODE": "off",
                **({"DATABASE_URL": database} if database else {}),
            },
        )
        bot = create_bot(TOKEN, telegram)
        bot.identity = await bot.get_me()
        async with (
            open_services(settings) as services,
            open_inbox(services.infra, BOT) as queued,
            RenderThread() as renderer,
        ):
            delivery = Delivery(bot, services.infra.clock, queued.inbox.sent_messages)
            cancellation = ReplyCancellation(ActiveReplies(), None, settings.redis_prefix, services.infra.clock)
            moderation = build_moderation(services, bot, delivery)
            job_worker = build_worker(
                services,
                queued,
                bot,
                delivery,
                cancellation,
                moderation,
                renderer,
                build_eraser(services, queued),
            )
            handler = wrap(job_worker)
            await services.warm()
            tune_garbage_collection()
            yield queued, handler, job_worker
        await bot.session.close()


async def cpu(name: str, database: str, telegram: str, llm: str, rounds: int, repeat: int) -> None:
    """Measure the CPU time of a turn with and without the inbox; Telegram and the provider are other processes."""
    async with open_bot(database, telegram, llm, RecordingHandler) as (queued, handler, job_worker):
        await queued.inbox.work(handler)

        async def direct() -> None:
            await job_worker.handle(_job())

        async def stored() -> None:
            job = _job()
            done = handler.expect(job)
            await queued.inbox.put([job])
            await done.wait()

        async def stored_together() -> None:
            jobs = [_job() for _ in range(CONCURRENT)]
            waits = [handler.expect(job).wait() for job in jobs]
            await queued.inbox.put(jobs)
            await asyncio.gather(*waits)

        async def direct_together() -> None:
            await asyncio.gather(*(job_worker.handle(_job()) for _ in range(CONCURRENT)))

        one: dict[str, Work] = {"direct": direct, "stored": stored}
        singly = await compare(one, rounds=rounds, repeat=repeat)
        many: dict[str, Work] = {"direct": direct_together, "stored": stored_together}
        together = await compare(many, rounds=rounds, repeat=max(repeat // CONCURRENT, 1))
        print_table(
            [f"{name}: CPU of a turn", "direct", "through the inbox", "ratio"],
            [_row("sequential", singly, 1), _row(f"{CONCURRENT} concurrently", together, CONCURRENT)],
        )
        await queued.inbox.queue.drain(5)


def _row(title: str, rounds: Rounds, turns: int) -> list[str]:
    each = [Spread.of([figure / turns for figure in rounds.figures[name]]).text() for name in ("direct", "stored")]
    return [title, *(f"{figure} ms" for figure in each), rounds.ratio("stored").text()]


async def throughput(name: str, database: str, telegram: str, llm: str) -> None:
    """Measure stored updates per second, in batches as from polling and singly as from a webhook."""
    async with open_bot(database, telegram, llm, lambda _: RecordingHandler()) as (queued, _, _):
        inbox = queued.inbox
        await inbox.put([_job()])
        rows: list[list[str]] = []
        for title, size, count, lane in (
            ("batches of 100", 100, 2000, None),
            ("batches of 100, five per chat", 100, 2000, "chat"),
            ("single, one at a time", 1, 300, None),
        ):
            jobs = [_job(f"telegram:{number // 5}:9" if lane else None) for number in range(count)]
            started_at, cpu_before = time.perf_counter(), time.process_time()
            for start in range(0, count, size):
                await inbox.put(jobs[start : start + size])
            rows.append(_rate(title, count, time.perf_counter() - started_at, time.process_time() - cpu_before))
        jobs = [_job() for _ in range(1000)]
        started_at, cpu_before = time.perf_counter(), time.process_time()
        for start in range(0, len(jobs), CONCURRENT):
            await asyncio.gather(*(inbox.put([job]) for job in jobs[start : start + CONCURRENT]))
        title = f"single, {CONCURRENT} at a time"
        rows.append(_rate(title, len(jobs), time.perf_counter() - started_at, time.process_time() - cpu_before))
        print_table([f"{name}: updates stored, not handled", "per second", "CPU each"], rows)


def _rate(title: str, count: int, seconds: float, cpu_s: float) -> list[str]:
    return [title, f"{count / seconds:.0f}", f"{cpu_s / count * 1000:.2f} ms"]


async def delay(name: str, database: str, telegram: str, llm: str, messages: int) -> None:
    """Measure the time from storing an update to the start of its job, in an idle process."""
    async with open_bot(database, telegram, llm, lambda _: RecordingHandler()) as (queued, handler, _):
        await queued.inbox.work(handler)
        watching = asyncio.create_task(queued.replicas.watch(queued.inbox.queue.recover))
        await asyncio.sleep(2)
        waits: list[float] = []
        for _ in range(messages):
            await asyncio.sleep(random.uniform(0.02, 0.15))
            job = _job()
            done = handler.expect(job)
            started_at = time.perf_counter()
            await queued.inbox.put([job])
            await done.wait()
            waits.append((handler.started[job.id] - started_at) * 1000)
        cuts = statistics.quantiles(waits, n=20)
        await asyncio.sleep(2)
        shares: list[float] = []
        for _ in range(5):
            cpu_before = time.process_time()
            await asyncio.sleep(3)
            shares.append((time.process_time() - cpu_before) / 3 * 100)
        print_table(
            [f"{name}: delay until a job starts", "median", "95th percentile", "worst", "CPU when idle"],
            [
                [
                    f"{messages} messages",
                    *(f"{figure:.0f} ms" for figure in (statistics.median(waits), cuts[18], max(waits))),
                    f"{Spread.of(shares).text()}% of a core",
                ]
            ],
        )
        watching.cancel()
        await asyncio.wait([watching])
        await queued.inbox.queue.drain(5)


async def memory(name: str, database: str, telegram: str, llm: str) -> None:
    """Measure the memory of 3,000 jobs in flight.

    Run it alone: memory freed by an earlier part would be reused.
    """
    gate = asyncio.Event()
    async with open_bot(database, telegram, llm, lambda _: RecordingHandler(gate=gate)) as (queued, handler, _):
        await queued.inbox.work(handler)
        jobs = [_job() for _ in range(IN_FLIGHT)]
        done = [handler.expect(job) for job in jobs]
        base = rss_mib(os.getpid())
        started_at = time.perf_counter()
        for start in range(0, IN_FLIGHT, 100):
            await queued.inbox.put(jobs[start : start + 100])
        last = -1
        while len(handler.started) > last:
            last = len(handler.started)
            await asyncio.sleep(3)
        print_table(
            [f"{name}: {IN_FLIGHT} jobs", "started", "after", "memory"],
            [
                [
                    "waiting for a model",
                    f"{len(handler.started)}",
                    f"{max(handler.started.values()) - started_at:.1f} s",
                    f"{rss_mib(os.getpid()) - base:.0f} MiB",
                ]
            ],
        )
        gate.set()
        await asyncio.gather(*(each.wait() for each in done))
        await queued.inbox.queue.drain(10)


async def main(databases: list[str], parts: list[str], rounds: int, repeat: int, messages: int) -> None:
    """Run the selected parts on each database."""
    async with AsyncExitStack() as stack:
        telegram = await stack.enter_async_context(telegram_process())
        llm = (await stack.enter_async_context(llm_process("--pieces", "1"))).url
        print(machine())
        for name in databases:
            server: PostgresServer | None = None
            if name == "PostgreSQL":
                if reason := missing():
                    sys.exit(reason)
                server = PostgresServer()
                stack.callback(server.remove)
                server.start()

            def fresh(server: PostgresServer | None = server) -> str:
                return server.create_database() if server is not None else ""

            if "cpu" in parts:
                await cpu(name, fresh(), telegram, llm, rounds, repeat)
            if "accepting" in parts:
                await throughput(name, fresh(), telegram, llm)
            if "delay" in parts:
                await delay(name, fresh(), telegram, llm, messages)
            if "memory" in parts:
                await memory(name, fresh(), telegram, llm)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--databases", nargs="+", default=["SQLite", "PostgreSQL"])
    parser.add_argument("--parts", nargs="+", default=["cpu", "accepting", "delay", "memory"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--messages", type=int, default=200)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(options.databases, options.parts, options.rounds, options.repeat, options.messages))
