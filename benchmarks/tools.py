"""Cost of the tools: imports of capabilities that are off and on, web pages through a child, calls of an MCP server."""

import asyncio
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from core.clock import SystemClock
from core.config.tool_servers import ToolServer
from services.files.sandbox import Sandbox
from services.mcp.servers import McpServers
from services.web.pages import PageReader

ROOT = Path(__file__).parents[1]
ROUNDS = 9
PARAGRAPH = (
    "<p>The <b>moon</b> pulls the <a href='/sea'>sea</a> twice a day, and the sun a little less than half as much.</p>"
)
PAGES = {
    "a page of 20 KB": PARAGRAPH * 180,
    "a page of 400 KB": PARAGRAPH * 3600,
    "2 MB of paragraphs of one letter": "<p>x</p>" * 240_000,
}
_DAEMON = "from bot.telegram.api.deferred_types import import_aiogram as i; i(); import bot.composition.telegram"
IMPORTS = {
    "the daemon's modules, `MCP_SERVERS` unset": _DAEMON,
    "and the SDK of MCP": f"{_DAEMON}, mcp, mcp.client.streamable_http",
}
_MEASURE = "import resource as r; u = r.getrusage(r.RUSAGE_SELF); print(u.ru_utime + u.ru_stime, u.ru_maxrss / 1024)"


def cpu_s() -> tuple[float, float]:
    """Return the CPU seconds of this process and of its ended children."""
    own, children = (resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, children.ru_utime + children.ru_stime


async def measure(act: Callable[[], Awaitable[object]]) -> tuple[float, float, float]:
    """Return the medians of wall clock, own CPU and the children's CPU of an act, in milliseconds."""
    await act()
    figures: list[tuple[float, float, float]] = []
    for _ in range(ROUNDS):
        (own, children), began = cpu_s(), time.perf_counter()
        await act()
        wall, (own_after, children_after) = time.perf_counter() - began, cpu_s()
        figures.append((wall, own_after - own, children_after - children))
    wall, own, child = (statistics.median(column) * 1000 for column in zip(*figures, strict=True))
    return wall, own, child


def print_imports() -> None:
    """Print CPU and memory of a process that has imported what a setting needs."""
    print("| process with | CPU | memory |\n|---|---|---|")
    for name, code in IMPORTS.items():
        figures: list[tuple[float, float]] = []
        for _ in range(3):
            command = [sys.executable, "-c", f"{code}\n{_MEASURE}"]
            cpu, memory = subprocess.check_output(command, cwd=ROOT, text=True).split()
            figures.append((float(cpu), float(memory)))
        cpu, memory = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"| {name} | {cpu:.2f} s | {memory:.0f} MB |")


async def print_pages() -> None:
    """Print the cost of reading pages from a server on loopback."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=list(PAGES.values())[int(request.match_info["number"])], content_type="text/html")

    app = web.Application()
    app.router.add_get("/{number}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    reader = PageReader(Sandbox(), allow_private=True)
    print("\n| read | wall clock | CPU of the bot (with the server) | CPU of the child |\n|---|---|---|---|")
    for number, name in enumerate(PAGES):
        wall, own, child = await measure(lambda number=number: reader.read(f"{url}/{number}"))
        print(f"| {name} | {wall:.0f} ms | {own:.0f} ms | {child:.0f} ms |")
    await runner.cleanup()


async def print_calls(file: Path) -> None:
    """Print the cost of a call of a server over standard input."""
    arguments = ("-m", "tests.support.mcp_server", str(file))
    servers = McpServers([ToolServer("notes", sys.executable, arguments, directory=str(ROOT))], SystemClock())
    servers.start()
    while not servers.connected:
        await asyncio.sleep(0.05)
    wall, own, _ = await measure(lambda: servers.call("notes", "read_lines", {}))
    print("\n| call | wall clock | CPU of the bot |\n|---|---|---|")
    print(f"| a tool of an MCP server over standard input | {wall:.1f} ms | {own:.1f} ms |")
    await servers.close()


async def main() -> None:
    """Print all tables."""
    print_imports()
    await print_pages()
    await print_calls(Path("/nonexistent/lines"))


if __name__ == "__main__":
    asyncio.run(main())
