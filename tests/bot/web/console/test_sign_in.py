"""Signing in to the console by a link of the bot and as a Mini App, over HTTP."""

import time
from urllib.parse import urlencode

import pytest
from aiogram.utils.web_app import check_webapp_signature
from aiohttp.test_utils import make_mocked_request
from pydantic import SecretStr

from bot.operators.console_links import ConsoleCommand, ConsoleLinks
from bot.web.console.frame.access import ConsoleAccess, Credentials
from services.admin.audit import AuditEntry
from tests.bot.web.console.conftest import ADMIN, BOT_TOKEN, TOKEN, ConsoleBrowser
from tests.support.mini_app import init_data, sign

pytestmark = pytest.mark.integration
STRANGER = 666


def links_of(browser: ConsoleBrowser) -> ConsoleLinks:
    """The links of the console that runs."""
    infra = browser.services.infra
    return ConsoleLinks(infra.redis, infra.settings.redis_prefix)


async def last_acts(browser: ConsoleBrowser) -> list[AuditEntry]:
    return await browser.services.operators.audit.recent()


async def exchange(browser: ConsoleBrowser, data: str) -> tuple[int, dict[str, str]]:
    """Send init data and return the response."""
    async with browser.http.post(f"{browser.base}/console/sign-in/telegram", data={"init_data": data}) as response:
        assert not response.cookies
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, await response.json()


@pytest.mark.parametrize("path", ["sign-in", "sign-in/telegram", "providers/beta/reset"])
async def test_form_that_is_no_text_is_refused(browser: ConsoleBrowser, path: str) -> None:
    await browser.sign_in()
    for charset, body in (
        ("utf-8", b"token=\xff&form=\xff"),
        ("no-such-encoding", b"token=a"),
        ("unicode_escape", b"token=\\ud800&form=\\ud800"),
    ):
        kind = {"Content-Type": f"application/x-www-form-urlencoded; charset={charset}"}
        async with browser.http.post(f"{browser.base}/console/{path}", data=body, headers=kind) as response:
            assert response.status == 400
    kind = {"Content-Type": "multipart/form-data"}
    async with browser.http.post(f"{browser.base}/console/{path}", data=b"--a", headers=kind) as response:
        assert response.status == 400


class TestForeignForm:
    """Forms submitted by a page of another site: they could sign an operator in as another one, or act for them."""

    FOREIGN = ({"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"},
               {"Origin": "https://evil.example"}, {"Origin": "http://127.0.0.1:1"})  # fmt: skip

    @pytest.mark.parametrize("headers", FOREIGN)
    async def test_foreign_form_does_not_sign_in(self, browser: ConsoleBrowser, headers: dict[str, str]) -> None:
        code = await links_of(browser).create(ADMIN)
        data = init_data(BOT_TOKEN, ADMIN, time.time())
        for path, fields in (
            ("sign-in", {"token": TOKEN}),
            (f"link/{code}", {}),
            ("sign-in/telegram", {"init_data": data}),
        ):
            async with browser.http.post(f"{browser.base}/console/{path}", data=fields, headers=headers) as response:
                assert (response.status, response.cookies) == (403, {}), path
                assert "another site" in await response.text()
        # The link was not used up by that.
        await browser.submit(f"/console/link/{code}", hidden={})
        assert "alpha answers" in browser.page

    async def test_act_is_refused_even_with_the_field_of_the_session(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        for headers in self.FOREIGN:
            address = f"{browser.base}/console/providers/beta/force"
            async with browser.http.post(address, data=browser.hidden(), headers=headers) as response:
                assert response.status == 403
        assert await browser.answered_by() == "alpha"

    async def test_own_pages_may_submit_behind_a_proxy_too(self, browser: ConsoleBrowser) -> None:
        for headers in (
            {"Sec-Fetch-Site": "same-origin", "Origin": "https://name.of.the.proxy"},
            {"Origin": browser.base},
            # The proxy has replaced the name of the host.
            {"Origin": browser.base, "Host": "localhost"},
        ):
            async with browser.http.post(
                f"{browser.base}/console/sign-in", data={"token": TOKEN}, headers=headers
            ) as response:
                assert "alpha answers" in await response.text(), headers


class TestLink:
    async def test_link_signs_its_operator_in_once(self, browser: ConsoleBrowser) -> None:
        code = await links_of(browser).create(ADMIN)
        # A program that looks at the link in advance does not use it up.
        assert f'action="/console/link/{code}"' in await browser.open(f"/console/link/{code}")
        await browser.submit(f"/console/link/{code}", hidden={})
        assert (browser.status, "alpha answers" in browser.page) == (200, True)
        await browser.submit("/console/providers/beta/force", **{"for": "1800"})
        assert {entry.actor_id for entry in await last_acts(browser)} == {ADMIN}
        browser.http.cookie_jar.clear()
        await browser.submit(f"/console/link/{code}", hidden={})
        assert (browser.status, "has been used or has expired" in browser.page) == (401, True)
        assert 'name="token"' in await browser.open("/console")

    async def test_unknown_link_is_refused(self, browser: ConsoleBrowser) -> None:
        for code in ("guessed", "%00", "é", "a" * 5000):
            await browser.submit(f"/console/link/{code}", hidden={})
            assert browser.status == 401
            assert "alpha" not in browser.page

    async def test_link_of_a_former_operator_is_refused(self, browser: ConsoleBrowser) -> None:
        code = await links_of(browser).create(STRANGER)
        await browser.submit(f"/console/link/{code}", hidden={})
        assert browser.status == 401

    async def test_code_expires_and_is_not_stored_itself(self, browser: ConsoleBrowser) -> None:
        code = await links_of(browser).create(ADMIN)
        redis = browser.services.infra.redis
        (key,) = [key async for key in redis.scan_iter("*:console:link:*")]
        assert 0 < await redis.ttl(key) <= 300
        assert code not in key

    async def test_command_hands_out_a_link_in_private_only(self, browser: ConsoleBrowser) -> None:
        links, audit = links_of(browser), browser.services.operators.audit
        command = ConsoleCommand(links, audit, browser.base)
        assert "private chat" in (await command.run(ADMIN, is_private=False)).text
        assert "WEB_PORT" in (await ConsoleCommand(links, audit, None).run(ADMIN, is_private=True)).text
        invitation = await command.run(ADMIN, is_private=True)
        assert invitation.app_url is None, "Telegram opens Mini Apps over https only"
        path = invitation.text.rpartition(browser.base)[2]
        await browser.submit(path, hidden={})
        assert "alpha answers" in browser.page
        assert [entry.action for entry in await last_acts(browser)] == ["console.sign_in", "console.link"]


class TestMiniApp:
    async def test_init_data_is_exchanged_for_a_session_in_a_header(self, browser: ConsoleBrowser) -> None:
        data = init_data(BOT_TOKEN, ADMIN, time.time())
        assert check_webapp_signature(BOT_TOKEN, data), "signed as aiogram expects it"
        status, body = await exchange(browser, data)
        assert status == 200
        browser.http.headers["Authorization"] = f"Console {body['session']}"
        assert "alpha answers" in await browser.open("/console")
        await browser.submit("/console/providers/beta/force", **{"for": "1800"})
        assert await browser.answered_by() == "beta"
        assert {entry.actor_id for entry in await last_acts(browser)} == {ADMIN}
        await browser.submit("/console/sign-out")
        assert 'name="token"' in await browser.open("/console")

    async def test_act_needs_the_field_of_its_session_too(self, browser: ConsoleBrowser) -> None:
        _, body = await exchange(browser, init_data(BOT_TOKEN, ADMIN, time.time()))
        browser.http.headers["Authorization"] = f"Console {body['session']}"
        await browser.submit("/console/providers/beta/force", hidden={"form": "guessed"})
        assert browser.status == 403

    async def test_forged_or_old_init_data_is_refused(self, browser: ConsoleBrowser) -> None:
        odd_date, deep = {"auth_date": "²", "user": f'{{"id":{ADMIN}}}'}, {"auth_date": "1", "user": "[" * 4000}
        now = time.time()
        for data, fault in (
            (init_data(BOT_TOKEN, STRANGER, now), "not an operator"),
            (init_data("43:of-another-bot", ADMIN, now), "not valid here"),
            (init_data(BOT_TOKEN, ADMIN, now)[:-1] + "g", "not valid here"),
            (init_data(BOT_TOKEN, STRANGER, now).replace(str(STRANGER), str(ADMIN)), "not valid here"),
            (init_data(BOT_TOKEN, ADMIN, now - 3700), "older than an hour"),
            # From the future: it would stay valid for longer than an hour.
            (init_data(BOT_TOKEN, ADMIN, now + 3600), "older than an hour"),
            # The second user is the one that a lax parser would read.
            (init_data(BOT_TOKEN, STRANGER, now) + f"&user=%7B%22id%22%3A{ADMIN}%7D", "not valid here"),
            # Signed, but not of the shape that a Mini App has.
            (urlencode({"auth_date": "1", "hash": sign(BOT_TOKEN, {"auth_date": "1"})}), "not valid here"),
            (urlencode({**odd_date, "hash": sign(BOT_TOKEN, odd_date)}), "not valid here"),
            (urlencode({**deep, "hash": sign(BOT_TOKEN, deep)}), "not valid here"),
            ("hash=é&auth_date=1", "not valid here"),
            ("hash=%ff&auth_date=1", "not valid here"),
            ("a=1&" * 100, "not valid here"),
            ("a" * 100_000, "not valid here"),
            ("", "not valid here"),
        ):
            status, body = await exchange(browser, data)
            assert (status, fault in body["fault"]) == (401, True), data[:100]
            assert "session" not in body

    async def test_page_may_be_framed_by_telegram_alone(self, browser: ConsoleBrowser) -> None:
        await browser.open("/console/sign-in")
        assert browser.headers["Content-Security-Policy"].endswith("frame-ancestors https://web.telegram.org")


class TestSession:
    async def test_session_ends_with_the_rights_and_with_the_token(self, browser: ConsoleBrowser) -> None:
        infra = browser.services.infra
        links = links_of(browser)

        def access(token: str, *admins: int) -> ConsoleAccess:
            credentials = Credentials(SecretStr(token), None, frozenset(admins))
            return ConsoleAccess(infra.redis, "p", credentials, links, infra.clock)

        before = access("a-token-of-sixteen", ADMIN, STRANGER)
        session = await before.sign_in_by_link(await links.create(STRANGER))
        request = make_mocked_request("GET", "/console", headers={"Authorization": f"Console {session.id}"})
        assert await before.find(request) == session
        assert await access("a-token-of-sixteen", ADMIN).find(request) is None
        assert await access("another-token-of-16", ADMIN, STRANGER).find(request) is None

    async def test_made_up_session_opens_nothing(self, browser: ConsoleBrowser) -> None:
        for header in ("Console", "Console ", "Console guessed", "Bearer x", "é"):
            async with browser.http.get(f"{browser.base}/console", headers={"Authorization": header}) as response:
                assert 'name="token"' in await response.text()
