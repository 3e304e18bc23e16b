"""The page of comparisons over HTTP: standings with intervals, pairs, periods, and the file."""

import pytest

from core.messages import UserRef
from services.compare.votes import Winner
from tests.bot.web.console.conftest import ConsoleBrowser

pytestmark = pytest.mark.integration


async def vote(browser: ConsoleBrowser, pair: tuple[str, str], winner: Winner, count: int) -> None:
    votes, asker = browser.services.chat.votes, UserRef("telegram:7")
    for number in range(count):
        await votes.vote(await votes.open(asker, pair, f"{pair} {winner} {number}"), asker, winner)


async def test_preferred_model_is_named_with_its_interval_and_pairs(browser: ConsoleBrowser) -> None:
    await browser.sign_in()
    assert "No votes yet" in await browser.open("/console/compare")
    await vote(browser, ("alpha/m", "beta/m"), Winner.A, 18)
    await vote(browser, ("beta/m", "alpha/m"), Winner.A, 2)
    page = await browser.open("/console/compare")
    assert "alpha/m is preferred: 90% of 20 votes." in page
    assert "90%, between 70% and 97%" in page
    assert "18 : 2" in page
    assert "alpha/m preferred" in page
    await vote(browser, ("beta/m", "beta/<b>"), Winner.TIE, 1)
    page = await browser.open("/console/compare?by=provider&days=0")
    assert "alpha is preferred: 90% of 20 votes." in page
    assert "<b>" not in page, "a name of a model is text"
    assert "&lt;b&gt;" in await browser.open("/console/compare?days=7")


async def test_file_has_the_rows_of_the_page(browser: ConsoleBrowser) -> None:
    await vote(browser, ("alpha/m", "beta/m"), Winner.B, 3)
    await vote(browser, ("=cmd/m", "beta/m"), Winner.TIE, 1)
    await browser.sign_in()
    lines = (await browser.open("/console/compare.csv?days=7")).splitlines()
    assert lines == [
        "model,against,wins,losses,ties,share,low_95,high_95,thumbs_up,thumbs_down",
        "beta/m,,3,0,1,0.8750,0.3958,0.9868,0,0",
        "'=cmd/m,,0,0,1,0.5000,0.0546,0.9454,0,0",
        "alpha/m,,0,3,0,0.0000,0.0000,0.5615,0,0",
        "beta/m,alpha/m,3,0,0,,,,,",
        "'=cmd/m,beta/m,0,0,1,,,,,",
    ]
    assert 'filename="compare-7-days-model.csv"' in browser.headers["Content-Disposition"]
