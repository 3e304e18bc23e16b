"""Accessibility, width and looks of every page, in light and dark, on a desk and a phone; screenshots are kept."""

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.browser.conftest import SCREENSHOTS, SIZES, Operator
from tests.support.fake_llm import server as llm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

BELOW = ("/console/providers/new", "/console/providers/alpha", "/console/providers/alpha/remove")
"""Pages that are not in the navigation."""
SERIOUS = {"serious", "critical"}


async def assert_accessible(page: Page, *rules: str) -> None:
    """Assert that axe has no serious finding, by all rules or by these."""
    results = await Axe().run(page, options={"runOnly": list(rules)} if rules else None)
    found = [violation for violation in results.response["violations"] if violation["impact"] in SERIOUS]
    assert not found, results.generate_report()


async def prepare(operator: Operator) -> None:
    """Give the pages something to show: requests, a failure, an act."""
    words = {"error": {"message": "Rate limit reached for model m: limit 500000, used 499812."}}
    operator.console.servers["alpha"].script(llm.status(429, words))
    await operator.answered_by()


async def test_pages_are_accessible_and_fit(operator: Operator) -> None:
    await prepare(operator)
    page = await operator.page(reduced_motion="reduce")
    await operator.sign_in(page)
    listed = await page.locator("nav li a").evaluate_all("links => links.map((link) => link.pathname)")
    assert "/console/providers" in listed
    for path in (*listed, *BELOW):
        await page.goto(operator.console.base + path)
        for size, (width, height) in SIZES.items():
            await page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                await page.emulate_media(color_scheme=scheme)
                if (size, scheme) == ("desk", "light"):
                    await assert_accessible(page)
                elif (size, scheme) == ("phone", "dark"):
                    await assert_accessible(page, "color-contrast", "target-size", "scrollable-region-focusable")
                name = path.removeprefix("/console").strip("/").replace("/", "-") or "overview"
                await page.screenshot(path=SCREENSHOTS / f"{name}-{size}-{scheme}.png", full_page=True)
            assert await page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} scrolls sideways"
    assert await page.evaluate("document.getAnimations().length") == 0
