"""Web pages and a search server on loopback."""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

PAGE = (
    "<html><head><title>Tides\n of  the sea</title><script>alert(1)</script></head>"
    "<body><h1>Tides</h1><nav><a href='/'>Home</a></nav><p>The <b>moon</b> <a href='/long'>pulls</a>.</p></body></html>"
)
BOMB = gzip.compress(b"0" * 20_000_000)
REDIRECTS = {"/hop": "/page", "/inwards": "http://169.254.169.254/latest/meta-data", "/loop": "/loop"}


class WebServer:
    """Answers with pages that test a reader, and as SearXNG under `/search` with `results` and `status`."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[str] = []
        self.results: Any = None
        self.status = 200

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers by path."""
        self.requests.append(str(request.rel_url))
        if request.path in REDIRECTS:
            raise web.HTTPFound(REDIRECTS[request.path])
        if request.path == "/slow":
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(b"x")
            await asyncio.Event().wait()
        if request.path == "/search":
            text = self.results if isinstance(self.results, str) else json.dumps(self.results)
            return web.Response(text=text, status=self.status, content_type="application/json")
        return self._page(request.path)

    def _page(self, path: str) -> web.Response:
        pages = {
            "/page": (PAGE, "text/html"),
            "/long": ("word " * 10_000, "text/plain"),
            "/large": ("x" * 300_000, "text/plain"),
            "/costly": ("<p>x</p>" * 200_000, "text/html"),
            "/deep": ("<div>" * 20_000 + "deep", "text/html"),
        }
        match path:
            case "/bomb":
                return web.Response(body=BOMB, headers={"Content-Encoding": "gzip", "Content-Type": "text/plain"})
            case "/picture":
                return web.Response(body=b"\x89PNG", content_type="image/png")
            case "/charset":
                return web.Response(body=b"x", headers={"Content-Type": "text/plain; charset=rot_13"})
            case _ if path in pages:
                text, content_type = pages[path]
                return web.Response(text=text, content_type=content_type)
            case _:
                return web.Response(status=404)


@asynccontextmanager
async def serve_pages() -> AsyncGenerator[WebServer]:
    """Serves until the context ends."""
    served = WebServer()
    app = web.Application()
    app.router.add_get("/{path:.*}", served.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()
