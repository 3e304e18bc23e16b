"""Accessibility, width and looks of every page, in light and dark, on a desk and a phone; screenshots are kept."""

from collections.abc import Sequence
from typing import Literal

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page

from tests.browser.conftest import SCREENSHOTS, SIZES, Operator
from tests.support.fake_llm import server as llm

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300), pytest.mark.asyncio(loop_scope="session")]

BELOW = ("/console/new-provider", "/console/providers/alpha", "/console/providers/alpha/remove")
"""Pages that are not in the navigation."""
LOOKS: Sequence[tuple[str, Literal["light", "dark"], Sequence[str] | None]] = (
    ("desk", "light", ()),
    ("phone", "dark", ("color-contrast", "target-size", "scrollable-region-focusable")),
    ("phone", "light", None),
    ("desk", "dark", None),
)
"""Size, theme and the rules of axe: none for all, a few where the others cannot differ, None for a picture alone."""
SERIOUS = {"serious", "critical"}


async def assert_accessible(page: Page, rules: Sequence[str]) -> None:
    """Assert that axe has no serious finding, by all rules or by these."""
    chosen = {"runOnly": list(rules)} if rules else {}
    results = await Axe().run(page, options={"resultTypes": ["violations"], **chosen})
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
        name = path.removeprefix("/console").strip("/").replace("/", "-") or "overview"
        for size, scheme, rules in LOOKS if path in {"/console", "/console/providers"} else LOOKS[:2]:
            width, height = SIZES[size]
            await page.set_viewport_size({"width": width, "height": height})
            await page.emulate_media(color_scheme=scheme)
            if rules is not None:
                await assert_accessible(page, rules)
                assert await page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} is too wide"
            await page.screenshot(path=SCREENSHOTS / f"{name}-{size}-{scheme}.png")
    assert await page.evaluate("document.getAnimations().length") == 0
