"""The operator's console in a real browser: signing in, acts with their effect, refreshing, and its manners."""

import asyncio
import json
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Page, Route, expect

from bot.operators.console_links import ConsoleLinks
from tests.browser.conftest import KEY, Operator
from tests.support.console_harness import ADMIN, BOT_TOKEN, running_console
from tests.support.mini_app import init_data
from tests.support.processes.redis_server import RedisServer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]
REFUSED = "status of 401"
"""Chromium notes such a response itself."""

NIGHT = {
    "bg_color": "#17212b", "secondary_bg_color": "#0e1621", "section_bg_color": "#17212b", "text_color": "#f5f5f5",
    "hint_color": "#708499", "button_color": "#5288c1", "button_text_color": "#ffffff",
}  # fmt: skip
RECORD_EVENTS = """
window.told = [];
window.TelegramWebviewProxy = { postEvent: (type, data) => window.told.push([type, JSON.parse(data)]) };
"""


def app_address(operator: Operator, data: str) -> str:
    """The address that Telegram opens."""
    theme = quote(json.dumps(NIGHT))
    return f"{operator.console.base}/console/app#tgWebAppData={quote(data)}&tgWebAppThemeParams={theme}"


async def actors(operator: Operator) -> set[int]:
    return {entry.actor_id for entry in await operator.console.services.operators.audit.recent()}


async def refresh(page: Page) -> None:
    """Let the page refresh now instead of in a few seconds."""
    async with page.expect_response(lambda response: response.request.resource_type == "fetch"):
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


async def test_link_signs_in_once(operator: Operator) -> None:
    infra = operator.console.services.infra
    code = await ConsoleLinks(infra.redis, infra.settings.redis_prefix).create(ADMIN)
    page = await operator.page()
    operator.tolerated.append(REFUSED)
    other = await operator.page()
    for each in (page, other):
        await each.goto(f"{operator.console.base}/console/link/{code}")
        await expect(each.get_by_role("button")).to_be_focused()
        await each.keyboard.press("Enter")
        await each.wait_for_url("**/console" if each is page else "**/console/link/*")
    await expect(page.locator("h1")).to_have_text("Overview")
    assert await actors(operator) == {ADMIN}
    await expect(other.get_by_role("alert")).to_contain_text("has been used or has expired")


async def test_mini_app_signs_in_and_acts_by_a_header(operator: Operator) -> None:
    context = await operator.context("phone", color_scheme="light")
    await context.add_init_script(RECORD_EVENTS)
    page = await context.new_page()
    await page.goto(app_address(operator, init_data(BOT_TOKEN, ADMIN, time.time())))
    await expect(page.locator("h1")).to_have_text("Overview")
    assert not await context.cookies(), "a cookie would not reach the frame of Telegram's web client"
    assert await page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
    surface = await page.evaluate("getComputedStyle(document.querySelector('.panel')).backgroundColor")
    assert surface == "rgb(23, 33, 43)", "Telegram's colour"
    await page.get_by_role("link", name="Providers").click()
    await expect(page.locator("h1")).to_have_text("Providers")
    await page.locator("#p-beta summary").click()
    await page.get_by_role("button", name="for 2h").click()
    await expect(page.get_by_role("status")).to_contain_text("beta is forced")
    assert await operator.answered_by() == "beta"
    assert await actors(operator) == {ADMIN}
    await page.evaluate("window.Telegram.WebView.receiveEvent('back_button_pressed')")
    await expect(page.locator("h1")).to_have_text("Overview")
    told = await page.evaluate("window.told")
    assert ["web_app_ready", {}] in told
    assert told[-2:] == [
        ["web_app_setup_back_button", {"is_visible": False}],
        ["web_app_setup_closing_behavior", {"need_confirmation": False}],
    ]


async def test_forged_mini_app_sees_nothing(operator: Operator) -> None:
    operator.tolerated.append(REFUSED)
    now = time.time()
    for data in (init_data(BOT_TOKEN, 666, now), init_data(BOT_TOKEN, ADMIN, now - 7200), "hash=é&auth_date=1"):
        page = await operator.page()
        await page.goto(app_address(operator, data))
        await expect(page.get_by_role("status")).to_contain_text("Telegram's sign-in is")
        assert "alpha" not in await page.content()
        await page.close()


async def test_acts_decide_the_next_request_by_keyboard_alone(operator: Operator) -> None:
    page = await operator.page()
    await operator.sign_in(page)
    await page.goto(f"{operator.console.base}/console/providers")
    said = page.get_by_role("status")

    async def press(name: str, card: str = "#p-beta") -> None:
        await page.locator(card).get_by_role("button", name=name).focus()
        await page.keyboard.press("Enter")

    await page.locator("#p-beta summary").focus()
    await page.keyboard.press("Enter")
    await press("for 30m")
    await expect(said).to_contain_text("beta is forced")
    assert await operator.answered_by() == "beta"
    await press("Release")
    await expect(page.locator("#p-beta .state")).not_to_contain_text("Forced")
    assert await operator.answered_by() == "alpha"
    await press("Cool down", "#p-alpha")
    await expect(page.locator("#p-alpha .state")).to_contain_text("Cooling down")
    assert await operator.answered_by() == "beta"
    # The button that was pressed is gone: its card has the focus, and not another button that acts.
    assert await page.evaluate("document.activeElement.id") == "p-alpha"
    await press("Use again", "#p-alpha")
    await expect(page.locator("#p-alpha .state")).not_to_contain_text("Cooling down")
    await press("Move beta up")
    await expect(page.locator("ol > li").first).to_have_id("p-beta")
    assert await operator.answered_by() == "beta"
    await page.get_by_role("button", name="Undo").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("ol > li").first).to_have_id("p-alpha")
    assert await operator.answered_by() == "alpha"
    await press("Test", "#p-alpha")
    await expect(page.get_by_text("m answers")).to_be_visible()


async def test_order_is_changed_by_mouse_finger_and_keys(operator: Operator) -> None:
    page = await operator.page(has_touch=True)
    await operator.sign_in(page)
    await page.goto(f"{operator.console.base}/console/providers")
    first, said = page.locator("ol > li").first, page.get_by_role("status")

    async def grip(card: str) -> tuple[float, float]:
        box = await page.locator(f"{card} .grip").bounding_box()
        assert box is not None
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    here, there = await grip("#p-beta"), await grip("#p-alpha")
    await page.mouse.move(*here)
    await page.mouse.down()
    await page.mouse.move(there[0], there[1] - 30, steps=3)
    await expect(first).to_have_id("p-beta")
    # A card that is given back where it was taken changes nothing.
    await page.keyboard.press("Escape")
    await page.mouse.up()
    await expect(first).to_have_id("p-alpha")
    await page.mouse.move(*here)
    await page.mouse.down()
    await page.mouse.move(there[0], there[1] - 30, steps=3)
    await page.mouse.up()
    await expect(said).to_contain_text("beta was moved to place 1")
    assert await operator.answered_by() == "beta"

    await page.locator("#p-beta").get_by_role("button", name="Test").focus()
    await page.keyboard.press("Alt+ArrowDown")
    await expect(said).to_contain_text("place 2")
    await expect(first).to_have_id("p-alpha")
    assert await operator.answered_by() == "alpha"
    assert await page.evaluate("document.activeElement.id") == "p-beta", "the next press moves the same card"

    touch = await page.context.new_cdp_session(page)
    (x, y), (_, top) = await grip("#p-beta"), await grip("#p-alpha")
    # A second finger takes no other card while the first one drags.
    for kind, points in (
        ("touchStart", [y]),
        ("touchStart", [y, top]),
        ("touchMove", [top + 5, top]),
        ("touchMove", [top - 30, top]),
        ("touchEnd", []),
    ):
        where = [{"x": x, "y": height, "id": finger} for finger, height in enumerate(points)]
        await touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": where})
    await expect(said).to_contain_text("place 1")
    assert await operator.answered_by() == "beta"
    acts = [entry.target for entry in await operator.console.services.operators.audit.recent(3)]
    assert acts == ["order: beta, alpha", "order: alpha, beta", "order: beta, alpha"]


async def test_key_is_tested_saved_used_and_never_seen_again(operator: Operator) -> None:
    page = await operator.page()
    await operator.sign_in(page)
    await page.goto(f"{operator.console.base}/console/providers/alpha")
    key = page.get_by_label("Key")
    await key.fill(KEY)
    await page.get_by_role("button", name="Test").click()
    await expect(page.get_by_text("m answers")).to_be_visible()
    assert await key.input_value() == KEY, "a test does not take away what was typed"
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_role("status")).to_contain_text("alpha is saved")
    await operator.answered_by()
    assert operator.console.servers["alpha"].requests[-1].headers["authorization"] == f"Bearer {KEY}"
    await page.go_back()
    await expect(page.locator("h1")).to_contain_text("alpha")
    assert await page.get_by_label("Key").input_value() == ""
    for path in ("settings", "audit", "providers/alpha/remove"):
        await page.goto(f"{operator.console.base}/console/{path}")
    await page.get_by_role("button", name="Remove").click()
    await expect(page.get_by_role("status")).to_contain_text("alpha is removed")
    await expect(page.locator("#p-alpha")).to_have_count(0)
    assert await operator.answered_by() == "beta"


async def test_token_is_shown_once_and_opens_the_endpoint_until_it_is_revoked(operator: Operator) -> None:
    page = await operator.page()
    await operator.sign_in(page)
    await page.goto(f"{operator.console.base}/console/tokens")
    await page.get_by_label("Name", exact=True).fill("editor")
    await page.get_by_role("button", name="Create token").click()
    made = page.locator(".notice code")
    await expect(made).to_be_in_viewport()
    headers = {"Authorization": f"Bearer {await made.text_content()}"}
    models = f"{operator.console.base}/v1/models"
    assert (await page.context.request.get(models, headers=headers)).status == 200
    await page.reload()
    await expect(made).to_have_count(0)
    await page.get_by_role("link", name="Edit").click()
    await page.get_by_role("link", name="Revoke").click()
    await page.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("link", name="Edit")).to_have_count(0)
    async with asyncio.timeout(30):
        while (await page.context.request.get(models, headers=headers)).status != 401:
            await asyncio.sleep(0.02)


async def test_refresh_keeps_focus_menus_and_the_report(operator: Operator) -> None:
    page = await operator.page()
    await operator.sign_in(page)
    await page.goto(f"{operator.console.base}/console/providers")
    test = page.locator("#p-beta").get_by_role("button", name="Test")
    await test.focus()
    await test.evaluate("button => button.known = true")
    await operator.console.services.llm.fallback.force_provider("beta", 600)
    await refresh(page)
    await expect(page.locator("#p-beta .state")).to_contain_text("Forced")
    assert await test.evaluate("button => button.known && document.activeElement === button")
    await page.locator("#p-alpha summary").click()
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(page.locator("#p-alpha details")).to_have_attribute("open", "")
    await page.keyboard.press("Escape")
    await expect(page.locator("#p-alpha details")).not_to_have_attribute("open", "")


async def test_refresh_keeps_text_that_is_half_typed(operator: Operator) -> None:
    page = await operator.page()
    await operator.sign_in(page)
    fields = """<input id="typed" value="of the server"><textarea id="left"></textarea><input id="box" type="checkbox">
        <select id="pick"><option selected>a</option><option>b</option></select>"""

    async def with_fields(route: Route) -> None:
        response = await route.fetch()
        await route.fulfill(response=response, body=(await response.text()).replace("</main>", f"{fields}</main>"))

    # No page that refreshes itself has fields so far.
    await page.route("**/console/providers", with_fields)
    await page.goto(f"{operator.console.base}/console/providers")
    await page.locator("#left").fill("a sentence that is le")
    await page.locator("#box").check()
    await page.locator("#pick").select_option("b")
    await page.locator("#typed").fill("half-typ")
    await page.keyboard.press("ArrowLeft")
    await operator.console.services.llm.fallback.force_provider("beta", 600)
    await refresh(page)
    await expect(page.locator("#p-beta .state")).to_contain_text("Forced")
    await page.keyboard.type("ed")
    assert await page.locator("#typed").input_value() == "half-tyedp"
    assert await page.locator("#left").input_value() == "a sentence that is le"
    assert await page.locator("#box").is_checked()
    assert await page.locator("#pick").input_value() == "b"


async def test_mini_app_works_in_the_frame_of_telegrams_web_client(operator: Operator) -> None:
    """There no cookie of the console is sent, and no other site may show it."""
    page = await operator.page()
    address = app_address(operator, init_data(BOT_TOKEN, ADMIN, time.time())).replace("&", "&amp;")
    body = f'<iframe width="900" height="700" src="{address}"></iframe>'
    for origin in ("https://web.telegram.org", "https://evil.example"):
        await page.route(f"{origin}/", lambda route: route.fulfill(content_type="text/html", body=body))
    await page.goto("https://web.telegram.org/")
    frame = page.frame_locator("iframe")
    await expect(frame.locator("h1")).to_have_text("Overview")
    await frame.locator("#do-providers-alpha-test button").click()
    await expect(frame.get_by_text("m answers")).to_be_visible()
    operator.tolerated.append("frame-ancestors")
    async with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        await page.goto("https://evil.example/")
    await expect(frame.locator("nav")).to_have_count(0)


async def test_lost_connection_is_said_and_a_lost_session_shows_nothing(operator: Operator) -> None:
    page = await operator.page()
    await operator.sign_in(page)
    operator.tolerated += ["ERR_INTERNET_DISCONNECTED", "Failed to fetch"]
    await page.context.set_offline(True)
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await expect(page.get_by_text("Connection lost")).to_be_visible()
    await page.context.set_offline(False)
    await refresh(page)
    await expect(page.get_by_text("Connection lost")).to_be_hidden()
    await page.context.clear_cookies()
    await refresh(page)
    await expect(page.locator("h1")).to_have_text("Sign in")
    assert "alpha" not in await page.content()


async def test_pages_work_without_scripts(operator: Operator) -> None:
    page = await operator.page(java_script_enabled=False)
    await operator.sign_in(page)
    await page.goto(f"{operator.console.base}/console/providers")
    await page.locator("#p-beta summary").click()
    await page.get_by_role("button", name="for 30m").click()
    await expect(page.get_by_role("status")).to_contain_text("beta is forced")
    assert await operator.answered_by() == "beta"


async def test_second_replica_follows_at_once(operator: Operator, tmp_path: Path) -> None:
    """A force by Redis, an order by the database."""
    server = RedisServer(tmp_path)
    await server.start()
    try:
        async with (
            running_console(tmp_path / "shared", REDIS_URL=server.url) as first,
            running_console(tmp_path / "shared", REDIS_URL=server.url) as second,
        ):
            operator.console = first
            page = await operator.page()
            await operator.sign_in(page)
            await page.goto(f"{first.base}/console/providers")
            await page.get_by_role("button", name="Move beta up").click()
            await expect(page.locator("ol > li").first).to_have_id("p-beta")
            async with asyncio.timeout(30):
                while await second.answered_by() != "beta":
                    await asyncio.sleep(0.02)
            await page.locator("#p-alpha summary").click()
            await page.get_by_role("button", name="for 30m").click()
            await expect(page.get_by_role("status")).to_contain_text("alpha is forced")
            async with asyncio.timeout(30):
                while await second.answered_by() != "alpha":
                    await asyncio.sleep(0.02)
            # A page that refreshes itself while the console closes would report it.
            await page.context.close()
    finally:
        await server.stop()
