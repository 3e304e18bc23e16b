"""Cost of voice, documents, pictures, web pages, MCP servers and schedules: time, CPU and memory of bot and children.

Each case runs in a process of its own, with a provider, a web server or an MCP server on loopback; the first two run in
the same process and are part of its CPU.
"""

import asyncio
import base64
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from aiohttp import web

from bot.composition.services import Services, open_services
from core.clock import SystemClock
from core.config.tool_servers import ToolServer
from core.messages import ChatKind, ConversationKey, Speaker, Surface
from services.files.sandbox import DOCUMENT_LIMITS, SOUND_LIMITS, Sandbox, Task
from services.inbox.job import Job
from services.llm.request import RequestSpec
from services.mcp.servers import McpServers
from services.schedule.dispatcher import ScheduleDispatcher
from services.schedule.schedules import ScheduleOwner
from services.web import PageReader
from tests.support import documents, sounds
from tests.support.fake_llm.server import LLMServer
from tests.support.settings import settings_for

ROOT = Path(__file__).parents[1]
ROUNDS = 7
PARAGRAPH = (
    "<p>The <b>moon</b> pulls the <a href='/sea'>sea</a> twice a day, and the sun a little less than half as much.</p>"
)
PAGES = {"20 KB": PARAGRAPH * 180, "400 KB": PARAGRAPH * 3600, "2 MB, paragraphs of one letter": "<p>x</p>" * 240_000}
_DAEMON = "from bot.telegram.api.deferred_types import import_aiogram as i; i(); import bot.composition.telegram"
IMPORTS = {
    "the daemon's modules, everything optional off": _DAEMON,
    "and the SDK of MCP": f"{_DAEMON}, mcp, mcp.client.streamable_http",
    "and voice, speech and pictures": f"{_DAEMON}, services.llm.capabilities.transcription, "
    "services.llm.capabilities.speech, services.llm.capabilities.images",
}
_MEASURE = (
    "import resource as r; u = r.getrusage(r.RUSAGE_SELF); lines = open('/proc/self/status').read().splitlines()\n"
    "print(u.ru_utime + u.ru_stime, next(int(line.split()[1]) for line in lines if line.startswith('VmHWM')) / 1024)"
)
LISTED = '{"a": ["m"]}'
Act = Callable[[], Awaitable[object]]
Build = Callable[[AsyncExitStack, Path], Awaitable[Act]]


def document(name: str) -> Build:
    """Build a case that reads a document in its child."""

    async def build(_stack: AsyncExitStack, _directory: Path) -> Act:
        kind, data = {
            "PDF": ("pdf", documents.pdf(*["A short page of a report."] * 100)),
            "DOCX": ("docx", documents.word(*["A paragraph of a report."] * 2000)),
            "XLSX": ("sheet", documents.sheet(*[("a", n, n / 3) for n in range(10_000)])),
        }[name]
        sandbox, options = Sandbox(), {"kind": kind, "most": 1_000_000}
        return lambda: sandbox.run(Task.DOCUMENT, data, DOCUMENT_LIMITS, options)

    return build


async def empty_child(_stack: AsyncExitStack, _directory: Path) -> Act:
    """Build the least that a child costs: a page of one word."""
    sandbox, options = Sandbox(), {"kind": "html", "most": 100, "base": "http://127.0.0.1"}
    return lambda: sandbox.run(Task.DOCUMENT, b"<p>word</p>", DOCUMENT_LIMITS, options)


def sound(name: str) -> Build:
    """Build a case that converts a sound in its child."""

    async def build(_stack: AsyncExitStack, _directory: Path) -> Act:
        data = sounds.wav(60) if name == "WAV" else sounds.video_note(20)
        sandbox = Sandbox()
        return lambda: sandbox.run(Task.SOUND, data, SOUND_LIMITS, {"longest_s": 1200})

    return build


async def open_bot(stack: AsyncExitStack, directory: Path, **variables: str) -> tuple[Services, LLMServer]:
    """Open the services of a bot with one provider on loopback."""
    server = await stack.enter_async_context(LLMServer(models=("m",)))
    settings = settings_for(directory, {"a": server.url}, **variables)
    return await stack.enter_async_context(open_services(settings)), server


async def voice_in(stack: AsyncExitStack, directory: Path) -> Act:
    """Build the transcription of a voice message of 30 s, which needs no child."""
    services, _ = await open_bot(stack, directory, VOICE_PROVIDERS=LISTED)
    transcriber, recording = services.llm.capabilities.transcriber, sounds.ogg(30, b"s" * 250)
    assert transcriber is not None
    return lambda: transcriber.hear(recording, RequestSpec("voice"))


async def voice_out(stack: AsyncExitStack, directory: Path) -> Act:
    """Build a spoken answer."""
    services, server = await open_bot(stack, directory, SPEECH_PROVIDERS=LISTED)
    server.speech = sounds.ogg(30, b"s" * 250)
    synthesizer = services.llm.capabilities.synthesizer
    assert synthesizer is not None
    return lambda: synthesizer.speak("A sentence of an answer. " * 40, RequestSpec("speech"))


async def picture_out(stack: AsyncExitStack, directory: Path) -> Act:
    """Build a drawn picture of 2 MB."""
    services, server = await open_bot(stack, directory, IMAGE_PROVIDERS=LISTED)
    data = b"\x89PNG\r\n\x1a\n" + os.urandom(2 << 20)
    server.picture = {"created": 1, "data": [{"b64_json": base64.b64encode(data).decode()}]}
    generator = services.llm.capabilities.image_generator
    assert generator is not None
    return lambda: generator.draw("a lighthouse in a storm", RequestSpec("images"))


def page(name: str) -> Build:
    """Build a case that reads a web page."""

    async def build(stack: AsyncExitStack, _directory: Path) -> Act:
        async def answer(_: web.Request) -> web.Response:
            return web.Response(text=PAGES[name], content_type="text/html")

        app = web.Application()
        app.router.add_get("/", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        reader, url = PageReader(Sandbox(), allow_private=True), f"http://127.0.0.1:{runner.addresses[0][1]}/"
        return lambda: reader.read(url)

    return build


async def mcp_call(stack: AsyncExitStack, directory: Path) -> Act:
    """Build the call of a tool of an MCP server over standard input."""
    arguments = ("-m", "tests.support.mcp_server", str(directory / "lines"))
    servers = McpServers([ToolServer("notes", sys.executable, arguments, directory=str(ROOT))], SystemClock())
    servers.start()
    stack.push_async_callback(servers.close)
    while not servers.connected:
        await asyncio.sleep(0.05)
    return lambda: servers.call("notes", "read_lines", {})


async def schedule(stack: AsyncExitStack, directory: Path) -> Act:
    """Build a reminder: stored, looked for, and the table of due ones read."""
    services, _ = await open_bot(stack, directory)
    schedules, numbers = services.chat.schedules, iter(range(10_000))

    class Inbox:
        async def put(self, jobs: list[Job]) -> list[Job]:
            del jobs
            return []

    dispatcher = ScheduleDispatcher(schedules, Inbox(), SystemClock(), lambda each: Job(str(each.id), "lane", 1, "{}"))

    async def act() -> None:
        number = next(numbers)
        key = ConversationKey(Surface.TELEGRAM, number)
        owner = ScheduleOwner(key, Speaker(number, "Ann", "en"), ChatKind.PRIVATE)
        await schedules.add(owner, "in 2 hours take the cake out", is_prompt=False)
        await dispatcher.enqueue_due()
        await schedules.next_at()

    return act


CASES: Mapping[str, Build] = {
    "a child that reads one word": empty_child,
    "PDF of 100 short pages": document("PDF"),
    "DOCX of 2,000 paragraphs": document("DOCX"),
    "XLSX of 10,000 rows": document("XLSX"),
    "voice message of 30 s, transcribed": voice_in,
    "WAV of 60 s, converted for it": sound("WAV"),
    "round video of 20 s, converted for it": sound("MP4"),
    "answer of 1,000 characters, spoken": voice_out,
    "picture of 2 MB, drawn": picture_out,
    **{f"web page of {name}": page(name) for name in PAGES},
    "tool of an MCP server": mcp_call,
    "reminder, stored and looked for": schedule,
}


def cpu_s() -> tuple[float, float]:
    """Return the CPU seconds of this process and of its ended children."""
    own, children = (resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


def children_kib() -> int:
    """Return the most memory that a child which runs now has held, in KiB."""
    peak = 0
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            peak = max([peak, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))])
    return peak


async def watch_child(act: Act) -> int:
    """Carry out an act once more and return the most memory that a child of this process held, in KiB."""
    # Not by `getrusage`, which counts the memory of this process at the fork.
    task, peak = asyncio.ensure_future(act()), 0
    while not task.done():
        peak = max(peak, children_kib())
        await asyncio.sleep(0.002)
    await task
    return peak


async def measure(build: Build) -> dict[str, float]:
    """Return the medians of a case in milliseconds, and its memory in MB."""
    figures: list[tuple[float, float, float]] = []
    with tempfile.TemporaryDirectory() as directory:
        async with AsyncExitStack() as stack:
            act = await build(stack, Path(directory))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await act()
            for _ in range(ROUNDS):
                (own, children), began = cpu_s(), time.perf_counter()
                await act()
                wall, (own_after, children_after) = time.perf_counter() - began, cpu_s()
                figures.append((wall, own_after - own, children_after - children))
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            peak_kib = await watch_child(act)
    wall, own, child = (statistics.median(column) * 1000 for column in zip(*figures, strict=True))
    return {"wall": wall, "own": own, "child": child, "grown": grown / 1024, "peak": peak_kib / 1024}


def print_imports() -> None:
    """Print CPU and memory of a process after the imports of a setting."""
    print("| process with | CPU | memory |\n|---|---|---|")
    for name, code in IMPORTS.items():
        figures: list[tuple[float, float]] = []
        for _ in range(3):
            command = [sys.executable, "-c", f"{code}\n{_MEASURE}"]
            cpu, memory = subprocess.check_output(command, cwd=ROOT, text=True).split()
            figures.append((float(cpu), float(memory)))
        cpu, memory = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {name} | {cpu:.2f} s | {memory:.0f} MB |")


def print_cases() -> None:
    """Print the table of the cases."""
    print("\n| case | time | CPU of the bot | CPU of the child | memory of the bot from its first use | of the child |")
    print("|---|---|---|---|---|---|")
    for name in CASES:
        command = [sys.executable, "-m", "benchmarks.tools", name]
        row = json.loads(subprocess.check_output(command, cwd=ROOT, text=True).splitlines()[-1])
        has_child = row["child"] > 0
        child, peak = (f"{row['child']:.0f} ms", f"{row['peak']:.0f} MB") if has_child else ("", "")
        print(f"| {name} | {row['wall']:.0f} ms | {row['own']:.1f} ms | {child} | {row['grown']:.0f} MB | {peak} |")


def main() -> None:
    """Print all tables, or the figures of one case."""
    if len(sys.argv) > 1:
        print(json.dumps(asyncio.run(measure(CASES[sys.argv[1]]))))
        return
    print_imports()
    print_cases()


if __name__ == "__main__":
    main()
