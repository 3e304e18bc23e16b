"""Traces of the whole bot at a real receiver, without message texts."""

import asyncio
import sys
import time
from collections import Counter
from pathlib import Path

from tests.support.bot_harness import FIRST, KEYS, SECOND, BotHarness
from tests.support.fake_llm.server import answer, status, tool_call
from tests.support.fake_telegram.server import TOKEN
from tests.support.processes.otlp_receiver import OTLPReceiver, ReceivedSpan
from tests.support.processes.redis_server import free_port

ROOT = Path(__file__).parents[2]
QUESTION = "My cat is called Schnurrdiburr."
HEADER_KEY = "a-key-of-the-collector"


def one(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    """Return the span of that name."""
    (span,) = [each for each in spans if each.name == name]
    return span


async def test_trace_of_a_failover(empty_stage: BotHarness) -> None:
    """Update, turn, library spans, each attempt, database and Telegram calls."""
    stage = empty_stage
    async with OTLPReceiver() as collector:
        await stage.start(
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_HEADERS=f"x-key={HEADER_KEY},x-team=the%20audience",
            OTEL_SERVICE_NAME="understudy-of-the-tests",
        )
        echo = {"error": {"message": f"{QUESTION} {KEYS['A_API_KEY']}", "type": "auth", "code": "invalid_api_key"}}
        stage.first.default = status(401, echo)
        assert (await stage.asks(QUESTION)).text == SECOND
        await stage.stop()
        spans = collector.spans
        update, turn = one(spans, "update"), one(spans, "turn")
        first, second = one(spans, "attempt a"), one(spans, "attempt b")
        assert len({span.trace for span in spans}) == 1
        assert (update.parent, turn.parent) == (b"", update.id)
        assert update.attributes == {"telegram.update": "message"}
        assert turn.attributes == {
            "understudy.phase": "complete",
            "understudy.provider": "b",
            "understudy.model": "n",
        }
        assert first.failed
        assert first.attributes == {
            "understudy.provider": "a",
            "understudy.model": "m",
            "understudy.context": "chat",
            "understudy.result": "failed",
            "understudy.fault": "misconfigured",
        }
        assert not second.failed
        assert second.attributes["understudy.result"] == "answered"
        assert second.attributes["understudy.first_output_s"] > 0
        by_id = {span.id: span for span in spans}
        asked = by_id[first.parent]
        assert asked.name.startswith("chat")
        assert asked.attributes["gen_ai.usage.output_tokens"] > 0
        assert by_id[second.parent] == asked
        assert [span.parent for span in spans if span.name == "telegram sendMessage"] == [update.id]
        assert sum(span.name == "transaction" for span in spans) >= 2
        assert "telegram getUpdates" not in {span.name for span in spans}
        assert collector.resource["service.name"] == "understudy-of-the-tests"
        assert (collector.headers[-1]["x-key"], collector.headers[-1]["x-team"]) == (HEADER_KEY, "the audience")
        for word in (QUESTION, "Schnurr", SECOND, *KEYS.values(), TOKEN, TOKEN.partition(":")[2], "instructions"):
            assert not any(word.encode() in body for body in collector.bodies), word
        assert HEADER_KEY not in stage.log


async def test_traces_contain_no_message_text(empty_stage: BotHarness) -> None:
    """An error that quotes the prompt, an unknown tool, invalid arguments."""
    stage = empty_stage
    async with OTLPReceiver() as collector:
        await stage.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        stage.first.script(
            tool_call("say_Schnurrdiburr", {"text": QUESTION}),
            tool_call("current_time", {"zone": QUESTION}),
            answer(FIRST),
        )
        assert (await stage.asks(QUESTION)).text == FIRST
        stage.first.default = stage.second.default = status(400, {"error": {"message": f"no: {QUESTION}"}})
        await stage.asks(QUESTION)
        await stage.stop()
        names = Counter(span.name for span in collector.spans)
        assert names["turn"] == 2
        assert names["chat understudy"] == 4
        assert names["execute_tool current_time"] == 1, names
        for body in collector.bodies:
            assert b"Schnurrdiburr" not in body
            assert b"My cat" not in body


async def test_unreachable_collector_is_logged_once(empty_stage: BotHarness) -> None:
    """Shutdown waits for it briefly."""
    stage = empty_stage
    await stage.start(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{free_port()}")
    assert (await stage.asks(QUESTION)).text == FIRST
    await stage.stop()
    assert len(stage.events("tracing.export_failed")) == 1
    async with OTLPReceiver(hangs=True) as collector:
        await stage.start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
        assert (await stage.asks(QUESTION)).text == FIRST
        began = time.monotonic()
        assert await stage.stop() == 0
        assert time.monotonic() - began < 6


async def test_traces_without_endpoint_import_no_exporter() -> None:
    """Parts of the SDK come with redis-py."""
    code = (
        "import asyncio, sys, tempfile\n"
        "from bot.composition.services import open_services\n"
        "from core.config.settings import load_settings\n"
        "async def main():\n"
        "    async with open_services(load_settings(None, {'DATA_DIR': tempfile.mkdtemp()})) as services:\n"
        "        await services.warm()\n"
        "asyncio.run(main())\n"
        "exporting = ('opentelemetry.exporter', 'opentelemetry.sdk.trace.export', 'core.observability.trace_export')\n"
        "print([name for name in sys.modules if name.startswith(exporting)])\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    told, _ = await asyncio.wait_for(process.communicate(), 50)
    assert told.decode().splitlines()[-1] == "[]"
