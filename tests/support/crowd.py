"""A crowd that asks a silent provider over real HTTP, with a healthy provider behind it."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from core.redis.client import open_redis
from services.llm.routing.events import AttemptEnded, LLMEvent
from services.llm.routing.timing import RoutingTiming
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.server import LLMServer
from tests.support.llm_harness import RealSleeps, answered_by, bench, provider


@dataclass(frozen=True, slots=True)
class CrowdReport:
    """The course of one crowd.

    Args:
        asked: requests that each provider got.
        answered: answers of each provider.
        ends: the attempts in the order of their ends, as provider and result.
        waits_s: seconds from each question to its answer.
        idle_s: the same for a request that chose the healthy provider while the crowd waited.
    """

    asked: dict[str, int]
    answered: Counter[str]
    ends: list[tuple[str, str]]
    waits_s: list[float]
    idle_s: float


async def run_crowd(people: int, deadline_s: float, timing: RoutingTiming) -> CrowdReport:
    """Have so many people ask at once.

    Args:
        people: each asks one question.
        deadline_s: to the first output of the silent provider.
        timing: its places and the patience of its queue.
    """
    ends: list[tuple[str, str]] = []

    def note(event: LLMEvent) -> None:
        if isinstance(event, AttemptEnded):
            ends.append((event.provider, event.result))

    async with LLMServer() as silent, LLMServer() as healthy, open_redis(None) as redis:
        silent.default, healthy.default = llm.hang(), llm.answer("Hello")
        providers = [
            provider("silent", silent.url, first_token_timeout_s=deadline_s, retries=0),
            provider("healthy", healthy.url),
        ]
        async with bench(redis, providers, RealSleeps(), timing=timing) as replica:
            await replica.ask(streamed=True, choice="healthy")  # the first request of a process imports for a second
            healthy.requests.clear()
            replica.fallback.recorder.watch(note)
            loop = asyncio.get_running_loop()

            async def ask(user: str, choice: str | None = None) -> tuple[str, float]:
                began = loop.time()
                response = await replica.ask(streamed=True, user=user, choice=choice)
                return answered_by(response), loop.time() - began

            asking = [asyncio.create_task(ask(f"telegram:{number}")) for number in range(people)]
            await silent.arrival(1, timeout_s=60)
            _, idle_s = await ask("telegram:idle", choice="healthy")
            answers = await asyncio.gather(*asking)
        asked = {"silent": len(silent.requests), "healthy": len(healthy.requests)}
    return CrowdReport(
        asked, Counter(name for name, _ in answers), ends, [seconds for _, seconds in answers], idle_s
    )  # fmt: skip
