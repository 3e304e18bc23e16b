"""A real Chromium at a running console. It records all that pages load, log and violate."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Error,
    Page,
    Request,
    Response,
    async_playwright,
    expect,
)

from tests.support.console_harness import BOT_TOKEN, SECRETS_KEY, TOKEN, RunningConsole, running_console

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
KEY = "kx-a-key-of-a-provider-0123456789"
SCREENSHOTS = Path("test-results")
WAIT_MS = 30_000
"""A browser beside other tests is slow; a test that waits for less would fail with the load."""
SIZES = {"desk": (1280, 800), "phone": (360, 740)}


@dataclass
class Operator:
    """An operator's browser at a running console."""

    console: RunningConsole
    browser: Browser
    stack: AsyncExitStack
    faults: list[str] = field(default_factory=list[str])
    tolerated: list[str] = field(default_factory=list[str])
    bodies: dict[str, str] = field(default_factory=dict[str, str])
    _reading: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])

    async def context(self, size: str = "desk", **options: Any) -> BrowserContext:
        """Return a browser of its own: no cookie, no cache of others."""
        width, height = SIZES[size]
        context = await self.browser.new_context(viewport={"width": width, "height": height}, **options)
        self.stack.push_async_callback(context.close)
        context.set_default_timeout(WAIT_MS)
        context.on("console", self._note_message)
        context.on("weberror", lambda error: self.faults.append(f"error: {error.error}"))
        context.on("request", self._note_request)
        context.on("response", lambda response: self._reading.append(asyncio.create_task(self._read(response))))
        return context

    async def page(self, size: str = "desk", **options: Any) -> Page:
        """Return a page of a new browser."""
        return await (await self.context(size, **options)).new_page()

    async def sign_in(self, page: Page) -> None:
        """Sign in by WEB_TOKEN; the field has the focus."""
        await page.goto(f"{self.console.base}/console")
        await expect(page.get_by_label("Console token")).to_be_focused()
        await page.keyboard.type(TOKEN)
        await page.keyboard.press("Enter")
        await page.wait_for_selector("nav")

    async def answered_by(self) -> str:
        """Return the provider that answers the next request."""
        return await self.console.answered_by()

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(text in message.text for text in self.tolerated):
            self.faults.append(f"{message.type}: {message.text}")

    def _note_request(self, request: Request) -> None:
        if not request.url.startswith(
            (self.console.base, "data:", "https://web.telegram.org/", "https://evil.example/")
        ):
            self.faults.append(f"foreign request: {request.url}")

    async def _read(self, response: Response) -> None:
        # A body that the browser has dropped meanwhile cannot be read any more.
        with suppress(Error):
            self.bodies[f"{len(self.bodies)} {response.url}"] = await response.text()

    async def assert_discreet(self) -> None:
        """No response holds a secret, and the pages violated no policy and failed nowhere."""
        # A response that a page has not read to its end has no body to be looked at.
        for reading in (await asyncio.wait(self._reading, timeout=5))[1]:
            reading.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        assert not self.faults
        assert any("/console" in url for url in self.bodies)
        for url, body in self.bodies.items():
            for secret in (KEY, TOKEN, SECRETS_KEY, BOT_TOKEN):
                assert secret not in body, url


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """One Chromium for all tests of this process."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=WAIT_MS)
    async with async_playwright() as playwright:
        # A page of Telegram's, which a test makes up, shows the console of this machine in a frame.
        local = "--disable-features=LocalNetworkAccessChecks"
        # A container may have little shared memory.
        arguments = [local, "--disable-dev-shm-usage", *sandbox]
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="session")
async def operator(chromium: Browser, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Operator]:
    """A browser at a console; at the end it has seen no secret and no fault, and the log has none either."""
    async with running_console(tmp_path / "data") as console, AsyncExitStack() as stack:
        operator = Operator(console, chromium, stack)
        yield operator
        await operator.assert_discreet()
    log = "".join(capsys.readouterr())
    for secret in (KEY, TOKEN, SECRETS_KEY, BOT_TOKEN):
        assert secret not in log
