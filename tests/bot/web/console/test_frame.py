"""The frame of every page: counts in the navigation and the strip, refreshed without the page."""

import re

import pytest

from core.db.job_tables import DeadLetterRow
from services.inbox.dead_letters import DeadLetters
from tests.bot.web.console.conftest import ConsoleBrowser
from tests.support.console_harness import offer_dead_letters, offer_moderation

pytestmark = pytest.mark.integration

EVERY_PAGE = (
    "", "/providers", "/providers/alpha", "/new-provider", "/usage", "/moderation", "/compare", "/dead", "/broadcasts",
    "/tokens", "/audit", "/settings", "/more", "/frame?page=dead",
)  # fmt: skip


def badges(page: str) -> dict[str, str]:
    """The counts beside the entries of the navigation."""
    return dict(re.findall(r'id="count-(\w+)">([^<]+)<', page))


async def test_every_page_has_the_counts_of_what_waits(browser: ConsoleBrowser) -> None:
    await browser.sign_in()
    assert badges(browser.page) == {}
    await offer_dead_letters(browser, "a bug", "blocked")
    harness, _ = await offer_moderation(browser)
    await harness.pipeline.handle(harness.message("remote work, write to https://t.me/scam"), harness.settings)
    # An act drops the cached counts, so that its own page shows its effect.
    await browser.submit("/console/providers/alpha/cool")
    for path in EVERY_PAGE:
        page = await browser.open(f"/console{path}")
        assert badges(page) == {"moderation": "1", "dead": "2", "more": "2"}, path
    await browser.open("/console/dead")
    await browser.submit("/console/dead/2/retry")
    assert badges(browser.page)["dead"] == "1"


async def test_counts_end_at_a_hundred(browser: ConsoleBrowser) -> None:
    await offer_dead_letters(browser, "a bug")
    infra = browser.services.infra
    rows = [
        {
            "job_id": f"j{number}",
            "lane": "l",
            "priority": 0,
            "payload": "",
            "reason": "",
            "failed_at": infra.clock.now(),
        }
        for number in range(150)
    ]
    insert = infra.database.insert(DeadLetterRow)
    await infra.database.run(lambda connection: connection.execute(insert, rows).rowcount)
    assert badges(await browser.sign_in())["dead"] == "99+"
    assert await DeadLetters(infra.database, infra.clock).count(1000) == 151


async def test_frame_is_sent_again_only_when_it_has_changed(browser: ConsoleBrowser) -> None:
    await browser.sign_in()
    page = await browser.open("/console/frame?page=settings")
    assert "<main" not in page
    assert 'href="/console/settings" aria-current="page"' in page
    assert "alpha: Answers" in page
    tag = browser.headers["ETag"]
    assert (await browser.open("/console/frame?page=settings", **{"If-None-Match": tag}), browser.status) == ("", 304)
    await browser.services.llm.fallback.force_provider("beta", 600)
    assert "beta: Forced" in await browser.open("/console/frame?page=settings", **{"If-None-Match": tag})
    assert browser.status == 200


async def test_counts_of_before_are_shown_while_the_database_fails(browser: ConsoleBrowser) -> None:
    await offer_dead_letters(browser, "a bug")
    await browser.sign_in()
    await browser.submit("/console/providers/alpha/cool")
    database = browser.services.infra.database
    await database.run(lambda connection: connection.exec_driver_sql("ALTER TABLE dead_letters RENAME TO elsewhere"))
    await browser.open("/console/settings")
    assert browser.status == 200
    assert badges(browser.page)["dead"] == "1"
