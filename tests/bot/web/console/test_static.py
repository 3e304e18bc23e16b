"""Files of the console's pages, and pages that have not changed."""

import hashlib
import re
from importlib.resources import files

import pytest

from bot.web.console.frame.responses import STATIC
from tests.bot.web.console.conftest import ConsoleBrowser

FOLDER = files("bot.web.console") / "static"
VENDORED = {
    # From the npm package idiomorph 0.8.0, dist/idiomorph.min.js.
    "idiomorph-0.8.0.min.js": "4cbd535caf7663a51eda9bce6595371c384fc430d54b8d414e29a61167f19f96"
}


def test_vendored_file_is_the_published_one() -> None:
    for name, digest in VENDORED.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest
        licence = FOLDER / f"{name.partition('-')[0]}.LICENSE"
        assert "Zero-Clause BSD" in licence.read_text(encoding="utf-8")


def test_every_script_is_own_or_vendored() -> None:
    scripts = {name for name in STATIC if name.endswith(".js")}
    assert scripts == {"console.js", "order.js", *VENDORED}


@pytest.mark.integration
async def test_files_of_a_page_are_served_and_cached_by_their_content(browser: ConsoleBrowser) -> None:
    page = await browser.open("/console/sign-in")
    paths = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page)
    assert len(paths) == len(STATIC)
    for path in paths:
        name = re.sub(r".*/|\?.*", "", path)
        async with browser.http.get(browser.base + path) as response:
            assert await response.read() == (FOLDER / name).read_bytes()
            assert response.content_type == STATIC[name]
            assert "immutable" in response.headers["Cache-Control"]
    assert len({path.partition("?")[2] for path in paths}) == len(paths)


@pytest.mark.integration
async def test_page_that_has_not_changed_is_not_sent_again(browser: ConsoleBrowser) -> None:
    await browser.sign_in()
    await browser.open("/console/providers")
    etag = browser.headers["ETag"]
    assert not await browser.open("/console/providers", **{"If-None-Match": etag})
    assert browser.status == 304
    await browser.open("/console/providers")
    await browser.submit("/console/providers/beta/force", **{"for": "1800"})
    assert "Forced" in await browser.open("/console/providers", **{"If-None-Match": etag})
    assert browser.status == 200
    # Without a session an old page is not confirmed either.
    browser.http.cookie_jar.clear()
    assert 'name="token"' in await browser.open("/console/providers", **{"If-None-Match": etag})
