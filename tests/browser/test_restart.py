"""A console whose server process goes and comes back while its pages are open."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.console_harness import TOKEN
from tests.support.fake_llm.server import LLMServer
from tests.support.processes.redis_server import RedisServer, free_port
from tests.support.settings import variables_for
from tests.support.sqlite_file import place_database

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]

ROOT = Path(__file__).parents[2]


@asynccontextmanager
async def serving(variables: Mapping[str, str], base: str) -> AsyncIterator[Process]:
    """Run `python -m bot serve` until it is ready, and kill it at the end."""
    environment = {**variables, "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "serve", cwd=variables["DATA_DIR"], env=environment, stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        async with asyncio.timeout(60), aiohttp.ClientSession() as http:
            while not await answers(http, f"{base}/readyz"):
                await asyncio.sleep(0.05)
        yield process
    finally:
        process.kill()
        await process.wait()


async def answers(http: aiohttp.ClientSession, address: str) -> bool:
    try:
        async with http.get(address) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def refresh(page: Page) -> None:
    """Let the page refresh now instead of in a few seconds."""
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_pages_say_that_the_server_is_gone_and_go_on_when_it_is_back(chromium: Browser, tmp_path: Path) -> None:
    redis, port = RedisServer(tmp_path), free_port()
    base, data = f"http://127.0.0.1:{port}", tmp_path / "data"
    place_database(data)
    await redis.start()
    context = await chromium.new_context()
    try:
        async with LLMServer() as llm:
            variables = variables_for(
                data, {"alpha": llm.url, "beta": llm.url}, WEB_PORT=str(port), WEB_TOKEN=TOKEN, REDIS_URL=redis.url
            )
            page, form = await context.new_page(), await context.new_page()
            async with serving(variables, base):
                await page.goto(f"{base}/console")
                await page.get_by_label("Console token").fill(TOKEN)
                await page.keyboard.press("Enter")
                await page.wait_for_selector("nav")
                await page.goto(f"{base}/console/providers")
                await form.goto(f"{base}/console/providers/alpha")
                await form.get_by_label("Daily cap").fill("12.5")
            for each in (page, form):
                await refresh(each)
                await expect(each.get_by_text("Connection lost")).to_be_visible()
            # An act is pale, does not go through, is said, and can be repeated.
            move = page.get_by_role("button", name="Move beta up")
            await expect(move).to_have_css("opacity", "0.6")
            await move.click()
            await expect(page.get_by_text("Connection lost")).to_be_visible()
            async with serving(variables, base):
                # By themselves, and with the session of before.
                for each in (page, form):
                    await expect(each.get_by_text("Connection lost")).to_be_hidden()
                await expect(move).to_have_css("opacity", "1")
                await move.click()
                await expect(page.get_by_role("status")).to_contain_text("beta was moved")
                assert await form.get_by_label("Daily cap").input_value() == "12.5", "what was typed is still there"
                await expect(form.locator("#strip")).to_contain_text("beta: Answers")
    finally:
        await context.close()
        await redis.stop()
