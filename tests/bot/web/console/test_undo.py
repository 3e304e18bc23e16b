"""Undo of acts in the console, over HTTP: at once, later in the audit log, and not when something has changed since."""

import asyncio
import re
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from bot.operators.spending import BudgetCommands
from services.api.tokens import TokenLimits, TokenStore
from services.llm.routing.admission.budget_guard import BudgetKind
from tests.bot.web.console.conftest import ConsoleBrowser

pytestmark = pytest.mark.integration
UNDO = re.compile(r'action="/console/((?:acts/[^"]+|undo/\d+|moderation/\d+)(?:/undo)?)"')


async def undo(browser: ConsoleBrowser) -> None:
    """Press the button that the page shows."""
    found = UNDO.search(browser.page)
    assert found is not None, "no Undo"
    await browser.submit(f"/console/{found[1]}")


async def test_force_and_its_end_are_undone(browser: ConsoleBrowser) -> None:
    await browser.sign_in()
    await browser.submit("/console/providers/beta/force", **{"for": "1800"})
    assert await browser.answered_by() == "beta"
    await undo(browser)
    assert "The change is undone" in browser.page
    assert await browser.answered_by() == "alpha"
    await browser.submit("/console/providers/beta/force", **{"for": "1800"})
    await browser.submit("/console/release")
    await undo(browser)
    assert await browser.answered_by() == "beta"
    assert "undid an act" in await browser.open("/console/audit")


async def test_cooldown_and_its_end_are_undone(browser: ConsoleBrowser) -> None:
    await browser.services.llm.fallback.report_provider_failure("alpha", TimeoutError("too slow"), "test")
    await browser.sign_in()
    await browser.open("/console/providers")
    await browser.submit("/console/providers/alpha/reset")
    assert await browser.answered_by() == "alpha"
    # The answer made alpha preferred, which is no act of an operator.
    await undo(browser)
    assert await browser.answered_by() == "beta"
    status = browser.services.llm.fallback.get_provider_status().providers[0]
    assert status.reason == "too slow", "the cause is known again, not only the pause"
    await browser.submit("/console/providers/beta/cool")
    await undo(browser)
    assert browser.services.llm.fallback.order()[0] == "beta"


async def test_act_is_undone_once_and_not_after_another(browser: ConsoleBrowser) -> None:
    await browser.sign_in()
    await browser.submit("/console/providers/beta/force", **{"for": "1800"})
    first = browser.page
    await browser.submit("/console/providers/beta/force", **{"for": "7200"})
    second = browser.page
    browser.page = first
    await undo(browser)
    assert (browser.status, "Something has changed since" in browser.page) == (409, True)
    for status in (200, 409):
        browser.page = second
        await undo(browser)
        assert browser.status == status
    assert "This was already undone" in browser.page
    # The first force holds again, for the rest of its half an hour.
    assert (
        0
        < (browser.services.llm.fallback.get_provider_status().providers[1].until or 0)
        - browser.services.infra.clock.time()
        <= 1800
    )


async def test_force_is_undone_from_wherever_it_stands(browser: ConsoleBrowser) -> None:
    """Also one that was set by a command, and long after its report."""
    admin = browser.services.operators.admin
    await browser.sign_in()
    for path in ("", "/providers", "/audit"):
        beta = admin.find("beta")
        assert beta is not None
        await admin.force(beta, 7, 600)
        await browser.open(f"/console{path}")
        await undo(browser)
        assert "The change is undone" in browser.page
        assert await browser.answered_by() == "alpha"
        assert UNDO.search(await browser.open(f"/console{path}")) is None, path
    # A force that replaced another one gives it back for the rest of its time.
    for name in ("beta", "alpha"):
        provider = admin.find(name)
        assert provider is not None
        await admin.force(provider, 7, 600)
    await browser.open("/console/providers")
    await undo(browser)
    assert await browser.answered_by() == "beta"


async def test_two_presses_at_once_undo_once(browser: ConsoleBrowser) -> None:
    budgets = browser.services.llm.budgets
    await browser.sign_in()
    await browser.open("/console/usage")
    await browser.submit("/console/budgets", kind="user", owner="7", amount="2.5")
    found = UNDO.search(browser.page)
    assert found is not None

    async def press() -> int:
        address = f"{browser.base}/console/{found[1]}"
        async with browser.http.post(address, data=browser.hidden(), allow_redirects=False) as response:
            return response.status

    assert sorted(await asyncio.gather(*(press() for _ in range(4)))) == [303, 409, 409, 409]
    assert (await budgets.state(BudgetKind.USER, "telegram:7")).limit_usd is None
    page = await browser.open("/console/audit")
    assert page.count("set a budget") == 2, "the act and one undo"


async def test_budget_and_limits_are_undone(browser: ConsoleBrowser) -> None:
    budgets = browser.services.llm.budgets
    await browser.sign_in()
    await browser.open("/console/usage")
    for amount in ("2.5", "0.1"):
        await browser.submit("/console/budgets", kind="user", owner="7", amount=amount)
    await undo(browser)
    assert (await budgets.state(BudgetKind.USER, "telegram:7")).limit_usd == 2.5
    assert "0.1; before: 2.5" in await browser.open("/console/audit")
    await browser.open("/console/tokens")
    await browser.submit("/console/tokens", name="ci", running="2")
    await browser.open("/console/tokens/ci")
    await browser.submit("/console/tokens/ci", running="1")
    await undo(browser)
    assert re.search(r"Requests at once: 2<", browser.page)


async def test_change_of_another_operator_at_the_same_time_is_not_undone(
    browser: ConsoleBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stored between the change and the page that offers the undo."""
    budgets, stores = browser.services.llm.budgets, list[TokenStore]()
    set_limit, change = BudgetCommands.set_limit, TokenStore.change

    async def set_before_another(*arguments: Any) -> Any:
        changed = await set_limit(*arguments)
        await budgets.set_limit(BudgetKind.USER, "telegram:7", 9.0)
        return changed

    async def change_before_another(*arguments: Any) -> None:
        await change(*arguments)
        stores.append(arguments[0])
        await change(arguments[0], "ci", TokenLimits(running=7), 9)

    await browser.sign_in()
    await browser.open("/console/usage")
    with monkeypatch.context() as patched:
        patched.setattr(BudgetCommands, "set_limit", set_before_another)
        await browser.submit("/console/budgets", kind="user", owner="7", amount="2.50")
    await undo(browser)
    assert browser.status == 409
    assert (await budgets.state(BudgetKind.USER, "telegram:7")).limit_usd == 9
    await browser.open("/console/tokens")
    await browser.submit("/console/tokens", name="ci", running="2")
    await browser.open("/console/tokens/ci")
    with monkeypatch.context() as patched:
        patched.setattr(TokenStore, "change", change_before_another)
        await browser.submit("/console/tokens/ci", running="1")
    await undo(browser)
    assert browser.status == 409
    assert [token.limits.running for token in await stores[0].all() if token.name == "ci"] == [7]


async def test_undo_that_the_database_fails_can_be_repeated(browser: ConsoleBrowser) -> None:
    budgets, file = browser.services.llm.budgets, browser.services.infra.settings.data_dir / "understudy.db"
    await browser.sign_in()
    await browser.open("/console/usage")
    await browser.submit("/console/budgets", kind="user", owner="7", amount="2.5")
    page = browser.page
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("ALTER TABLE budget_limits RENAME TO elsewhere")
        await undo(browser)
        database.execute("ALTER TABLE elsewhere RENAME TO budget_limits")
    assert browser.status == 503
    browser.page = page
    await undo(browser)
    assert "The change is undone" in browser.page
    assert (await budgets.state(BudgetKind.USER, "telegram:7")).limit_usd is None


async def test_change_of_the_configuration_is_undone_from_the_audit_log(browser: ConsoleBrowser) -> None:
    await browser.sign_in()
    await browser.open("/console/providers")
    await browser.submit("/console/providers/beta/move", to="up")
    assert await browser.answered_by() == "beta"
    await browser.open("/console/audit")
    await undo(browser)
    assert await browser.answered_by() == "alpha"
    # The change that was undone cannot be undone again.
    assert UNDO.search(await browser.open("/console/audit")) is None


@pytest.mark.parametrize(
    "path", ["undo/x", "acts/../sign-out", "settings/X/reset", "https://evil.example", "acts/%2e/undo"]
)
async def test_page_offers_no_undo_that_its_address_makes_up(browser: ConsoleBrowser, path: str) -> None:
    await browser.sign_in()
    page = await browser.open(f"/console/providers?did=moved&about=beta&undo={path}")
    assert "beta was moved" in page
    assert "Undo" not in page
