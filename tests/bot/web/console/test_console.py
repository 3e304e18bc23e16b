"""The operator's console as a browser without scripts uses it."""

import re

import pytest

from tests.bot.web.console.conftest import TOKEN, ConsoleBrowser
from tests.support.fake_llm import server as llm

pytestmark = pytest.mark.integration

PAGES = (
    "",
    "/providers",
    "/new-provider",
    "/providers/alpha",
    "/providers/alpha/remove",
    "/usage",
    "/audit",
    "/settings",
)


class TestAccess:
    @pytest.mark.parametrize("path", [*PAGES, "/usage.csv", "/settings.env"])
    async def test_page_asks_for_a_sign_in(self, browser: ConsoleBrowser, path: str) -> None:
        page = await browser.open(f"/console{path}")
        assert 'name="token"' in page
        assert "alpha" not in page

    @pytest.mark.parametrize("path", ["force", "cool", "reset", "test", "move", "remove", ""])
    async def test_act_without_a_session_changes_nothing(self, browser: ConsoleBrowser, path: str) -> None:
        await browser.submit(f"/console/providers/alpha/{path}".rstrip("/"), hidden={}, id="alpha")
        assert 'name="token"' in browser.page
        assert browser.services.llm.fallback.get_provider_status().forced is None

    @pytest.mark.parametrize("token", ["not-the-token-of-this-console", "", TOKEN[:-1], "\udcff"])
    async def test_wrong_token_is_refused(self, browser: ConsoleBrowser, token: str) -> None:
        await browser.sign_in(token.encode(errors="replace").decode())
        assert (browser.status, "not the value of WEB_TOKEN" in browser.page) == (401, True)
        assert 'name="token"' in await browser.open("/console")

    async def test_act_without_the_field_of_the_session_is_refused(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        for hidden in ({}, {"form": "guessed"}):
            await browser.submit("/console/providers/beta/force", hidden=hidden)
            assert browser.status == 403
        assert browser.services.llm.fallback.get_provider_status().forced is None

    async def test_cookie_is_out_of_reach_of_scripts_and_other_sites(self, browser: ConsoleBrowser) -> None:
        async with browser.http.post(
            f"{browser.base}/console/sign-in",
            data={"token": TOKEN},
            allow_redirects=False,
            headers={"X-Forwarded-Proto": "https"},
        ) as response:
            cookie = response.headers["Set-Cookie"]
        assert "Secure" in cookie
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert "Path=/console" in cookie

    async def test_signed_out_session_opens_nothing(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        assert "alpha" in await browser.open("/console")
        cookies = {cookie.key: cookie.value for cookie in browser.http.cookie_jar}
        await browser.submit("/console/sign-out")
        async with browser.http.get(f"{browser.base}/console", cookies=cookies) as response:
            assert 'name="token"' in await response.text()

    @pytest.mark.parametrize("path", PAGES)
    async def test_page_obeys_a_strict_policy(self, browser: ConsoleBrowser, path: str) -> None:
        await browser.sign_in()
        page = await browser.open(f"/console{path}")
        assert browser.status == 200
        assert "default-src 'none'" in browser.headers["Content-Security-Policy"]
        assert browser.headers["Cache-Control"] == "no-store"
        # Scripts and styles come as files of this console: nothing inline, nothing from elsewhere.
        assert not re.search(r"<script(?![^>]* src=\"/console/static/)|</script>(?<!></script>)|<style", page)
        assert not re.search(r"\s(style|on\w+)=", page)
        assert not re.search(r"(src|href|action)=\"(https?:)?//", page)

    @pytest.mark.parametrize("language", ["en", "ru"])
    @pytest.mark.parametrize("path", PAGES)
    async def test_page_has_every_text(self, browser: ConsoleBrowser, path: str, language: str) -> None:
        await browser.sign_in()
        async with browser.http.get(f"{browser.base}/console{path}", headers={"Accept-Language": language}) as response:
            page = await response.text()
        assert f'lang="{language}"' in page
        assert "web-" not in page

    async def test_page_is_in_a_language_that_the_browser_accepts(self, browser: ConsoleBrowser) -> None:
        for accepted, language in (
            ("uk, ru;q=0.9, en;q=0.8", "ru"),
            ("de-DE,de", "en"),
            ("RU-ru", "ru"),
            ("*", "en"),
            ("", "en"),
        ):
            page = await browser.open("/console/sign-in", **{"Accept-Language": accepted})
            assert f'<html lang="{language}">' in page
            assert ("Вход" in page) == (language == "ru")


class TestActs:
    async def test_force_and_release_decide_the_next_request(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        assert "alpha answers" in browser.page
        await browser.submit("/console/providers/beta/force", **{"for": "7200"})
        assert "beta is forced" in browser.page
        assert await browser.answered_by() == "beta"
        await browser.submit("/console/release")
        assert await browser.answered_by() == "alpha"

    async def test_cooldown_ends_by_use_again(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.submit("/console/providers/alpha/cool")
        assert "Cooling down" in browser.page
        assert await browser.answered_by() == "beta"
        await browser.submit("/console/providers/alpha/reset")
        assert await browser.answered_by() == "alpha"

    async def test_moved_provider_is_asked_at_once_and_undo_takes_it_back(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        assert await browser.answered_by() == "alpha"
        await browser.open("/console/providers")
        await browser.submit("/console/providers/beta/move", to="up")
        assert await browser.answered_by() == "beta"
        undo = browser.page.split('action="/console/undo/')[1].split('"')[0]
        await browser.submit(f"/console/undo/{undo}")
        assert "The change is undone" in browser.page
        assert await browser.answered_by() == "alpha"

    async def test_second_of_two_operators_is_told(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers")
        stale = browser.hidden()
        await browser.submit("/console/providers/beta/move", to="up")
        await browser.submit("/console/providers/beta/move", hidden=stale, to="down")
        assert browser.status == 409
        for revision in ("9" * 5000, "x", ""):
            await browser.submit("/console/providers/beta/move", hidden={**stale, "revision": revision}, to="down")
            assert browser.status == 409
        assert "Another operator changed" in browser.page
        assert await browser.answered_by() == "beta"

    async def test_what_another_operator_removed_is_said_to_be_gone(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers/alpha/remove")
        hidden = browser.hidden()
        await browser.submit("/console/providers/alpha/remove")
        for page in (
            await browser.submit("/console/providers/alpha/force", hidden=hidden),
            await browser.open("/console/providers/alpha"),
        ):
            assert browser.status == 404
            assert "no longer does" in page
            assert "<nav" in page

    async def test_removed_provider_is_gone(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        page = await browser.open("/console/providers/alpha/remove")
        assert "The next requests go to beta" in page
        await browser.submit("/console/providers/alpha/remove")
        assert 'id="p-alpha"' not in browser.page
        assert await browser.answered_by() == "beta"

    async def test_acts_are_audited(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.submit("/console/providers/beta/force", **{"for": "1800"})
        await browser.submit("/console/providers/beta/move", to="up")
        page = await browser.open("/console/audit")
        for shown in ("signed in to the console", "forced", "changed the configuration", "order: beta, alpha"):
            assert shown in page

    async def test_provider_is_moved_to_a_position(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers")
        page = await browser.submit("/console/providers/beta/move", to="1")
        assert "beta was moved to place 1" in page
        assert page.index('id="p-beta"') < page.index('id="p-alpha"')
        # A place that does not exist, or its own, changes nothing.
        for place in ("1", "3", "0", "-1", "x", "9" * 40, "²"):
            assert "was moved" not in await browser.submit("/console/providers/beta/move", to=place), place
        assert await browser.answered_by() == "beta"

    async def test_all_providers_are_tested_at_once(self, browser: ConsoleBrowser) -> None:
        browser.servers["beta"].script(llm.status(401, {"error": {"message": "Incorrect API key provided"}}))
        await browser.sign_in()
        await browser.open("/console/providers")
        page = await browser.submit("/console/test-providers")
        assert page.index("<h3>alpha</h3>") < page.index("m answers") < page.index("<h3>beta</h3>")
        assert "m does not answer" in page
        assert "Incorrect API key provided" in page


FIELDS = {"kind": "openai_compatible", "models": "m", "retries": ""}


class TestForm:
    async def test_key_is_stored_used_and_never_shown(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers/alpha")
        url = browser.servers["alpha"].url
        await browser.submit("/console/providers/alpha", **FIELDS, base_url=url, key="kx-of-the-console", act="save")
        assert "alpha is saved" in browser.page
        await browser.answered_by()
        assert browser.servers["alpha"].requests[-1].headers["authorization"] == "Bearer kx-of-the-console"
        for path in (*PAGES, "/settings.env"):
            assert "of-the-console" not in await browser.open(f"/console{path}")

    async def test_new_provider_answers_the_next_request(self, browser: ConsoleBrowser) -> None:
        async with llm.LLMServer() as gamma:
            gamma.default = llm.answer("from gamma")
            await browser.sign_in()
            await browser.open("/console/new-provider")
            await browser.submit("/console/new-provider", **FIELDS, id="gamma", base_url=gamma.url, act="save")
            assert 'id="p-gamma"' in browser.page
            await browser.submit("/console/providers/gamma/force")
            browser.servers = {**browser.servers, "gamma": gamma}
            assert await browser.answered_by() == "gamma"

    async def test_values_are_tested_before_they_are_saved(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers/alpha")
        beta = browser.servers["beta"]
        beta.script(llm.status(401))
        await browser.submit("/console/providers/alpha", **FIELDS, base_url=beta.url, key="kx-wrong-key", act="test")
        assert "m does not answer" in browser.page
        assert "HTTP 401" in browser.page
        await browser.submit("/console/providers/alpha", **FIELDS, base_url=beta.url, act="test")
        assert "m answers" in browser.page
        assert browser.services.llm.configuration.current.revision == 0

    async def test_mistake_stays_in_the_form_with_its_line(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers/alpha")
        await browser.submit("/console/providers/alpha", **{**FIELDS, "retries": "many"}, base_url="x", act="save")
        assert browser.status == 422
        assert "ALPHA_RETRIES" in browser.page
        assert "ALPHA_BASE_URL" in browser.page
        assert 'value="many"' in browser.page

    async def test_setting_is_reset_to_the_environment(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers/alpha")
        url = browser.servers["alpha"].url
        await browser.submit("/console/providers/alpha", **{**FIELDS, "retries": "3"}, base_url=url, act="save")
        assert "ALPHA_RETRIES" in await browser.open("/console/settings.env")
        await browser.open("/console/settings")
        await browser.submit("/console/settings/ALPHA_RETRIES/reset")
        assert "ALPHA_RETRIES" not in await browser.open("/console/settings.env")

    @pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x>', "a b", ""])
    async def test_hostile_text_is_shown_as_text(self, browser: ConsoleBrowser, name: str) -> None:
        await browser.sign_in()
        await browser.open("/console/new-provider")
        await browser.submit("/console/new-provider", kind="openai", models=f"m{name}", id=name, act="save")
        assert browser.status == 422
        assert "<script>" not in browser.page
        assert "<img" not in browser.page
