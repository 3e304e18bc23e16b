"""Moderation, dead letters, tokens, budgets, broadcasts and providers in a real browser: each act with its effect."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.async_api import Page, expect
from pydantic_ai.direct import model_request_stream
from pydantic_ai.messages import ModelRequest

from bot.operators.console_links import ConsoleLinks
from core.messages import ConversationKey, Surface
from services.admin.broadcasts import BroadcastState
from services.llm.routing.admission.budget_guard import BudgetKind
from services.moderation.domain.message import Author, AuthorKind
from tests.browser.conftest import Operator
from tests.support.console_harness import ADMIN, BOT_TOKEN, offer_dead_letters, offer_moderation, running_console
from tests.support.fake_llm import server as llm
from tests.support.mini_app import init_data
from tests.support.moderation_harness import NEWCOMER

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180), pytest.mark.asyncio(loop_scope="session")]


async def sign_in_as_person(operator: Operator, page: Page) -> None:
    """Sign in by a link of the bot: only a person decides about cards."""
    infra = operator.console.services.infra
    code = await ConsoleLinks(infra.redis, infra.settings.redis_prefix).create(ADMIN)
    await page.goto(f"{operator.console.base}/console/link/{code}")
    await page.get_by_role("button").click()
    await page.wait_for_selector("nav")


async def open_page(operator: Operator, path: str) -> Page:
    page = await operator.page()
    await sign_in_as_person(operator, page)
    await page.goto(f"{operator.console.base}/console/{path}")
    return page


async def test_decisions_about_cards_hold_for_the_next_message(operator: Operator) -> None:
    console = operator.console
    harness, group = await offer_moderation(console)
    texts = (
        "Remote work one, 2 hours a day, from $180, write to https://t.me/scam",
        "Our crypto signals doubled two deposits in a week, join @signals_for_all",
        "Three flats by the sea for half of the price, call the agent in private",
    )
    adverts = [
        replace(harness.message(text, number), author=Author(NEWCOMER + number, AuthorKind.USER, f"Ann {number}"))
        for number, text in enumerate(texts)
    ]
    for advert in adverts:
        await harness.pipeline.handle(advert, harness.settings)
    group.actions.clear()
    page = await open_page(operator, "moderation")
    said, cards = page.get_by_role("status"), page.locator("ol > li")
    await expect(cards).to_have_count(len(adverts))

    async def decide(name: str, words: str) -> None:
        """Press a button of the first card that shows these words, by the keyboard."""
        await cards.filter(has_text=words).get_by_role("button", name=name).focus()
        await page.keyboard.press("Enter")

    await decide("Ban", "Remote work")
    await expect(said).to_contain_text("is decided")
    assert ("ban", NEWCOMER) in group.actions
    await page.get_by_role("button", name="Undo: lift").click()
    await expect(said).to_contain_text("is undone")
    assert ("unban", NEWCOMER) in group.actions
    # The text is allowed from now on: the same message passes.
    group.actions.clear()
    await harness.pipeline.handle(replace(adverts[0], message_ids=(10,)), harness.settings)
    assert group.actions == []

    # By the keys of a card; the card after one that was decided has the focus.
    await expect(page.get_by_text("Keys of a card")).to_be_visible()
    await cards.first.focus()
    await page.keyboard.press("j")
    await expect(cards.filter(has_text="signals")).to_be_focused()
    await page.keyboard.press("c")
    await expect(said).to_contain_text("is decided")
    await expect(cards.filter(has_text="flats")).to_be_focused()
    await page.keyboard.press("u")
    await expect(said).to_contain_text("is undone")
    await expect(cards).to_have_count(0)
    await page.get_by_role("link", name="Decided").click()
    await expect(cards.filter(has_text="signals").get_by_role("button", name="Confirm")).to_have_count(0)


async def test_letters_are_retried_and_discarded(operator: Operator) -> None:
    queue = await offer_dead_letters(operator.console, "a bug", "blocked", "too large", "flood")
    page = await open_page(operator, "dead")
    said, letters = page.get_by_role("status"), page.locator("ol > li")
    await letters.filter(has_text="blocked").get_by_role("button", name="Retry").click()
    await expect(said).to_contain_text("is queued again")
    assert [job.id.split("~")[0] for job in queue.jobs] == ["tg-1"]
    discard = letters.filter(has_text="too large").get_by_role("link", name="Discard")
    await expect(page.locator("#count-dead")).to_contain_text("3")
    for is_closed_by_key in (True, False):
        await discard.click()
        keep = page.get_by_role("dialog").get_by_role("link", name="Keep it")
        await expect(keep).to_be_focused()
        await (page.keyboard.press("Escape") if is_closed_by_key else keep.click())
        await expect(page.get_by_role("dialog")).to_have_count(0)
        await expect(discard).to_be_focused()
    await expect(letters).to_have_count(3)
    await letters.filter(has_text="too large").get_by_role("link", name="Discard").click()
    await page.get_by_role("button", name="Discard").click()
    await expect(said).to_contain_text("is discarded")
    await page.get_by_role("button", name="Retry all").click()
    await expect(page.get_by_text("No dead letters")).to_be_visible()
    assert [job.id.split("~")[0] for job in queue.jobs] == ["tg-1", "tg-0", "tg-3"]


async def test_limits_of_a_token_and_a_budget_hold_for_the_next_request(operator: Operator) -> None:
    page = await open_page(operator, "tokens")
    said = page.get_by_role("status")
    await page.get_by_label("Name", exact=True).fill("editor")
    await page.get_by_role("button", name="Create token").click()
    headers = {"Authorization": f"Bearer {await page.locator('.notice code').text_content()}"}

    async def ask() -> int:
        data = {"model": "alpha/m", "messages": [{"role": "user", "content": "Hello?"}]}
        address = f"{operator.console.base}/v1/chat/completions"
        return (await page.context.request.post(address, headers=headers, data=data)).status

    assert await ask() == 200
    await page.get_by_role("link", name="Edit").click()
    await page.get_by_label("Models").fill("beta/*")
    await page.get_by_role("button", name="Save").click()
    await expect(said).to_contain_text("limits of editor are changed")
    assert await ask() == 404
    await page.get_by_role("button", name="Undo").click()
    await expect(said).to_contain_text("undone")
    assert await ask() == 200

    await page.goto(f"{operator.console.base}/console/usage")
    for amount in ("2.5", "0.1"):
        await page.get_by_label("Telegram id").fill("7")
        await page.get_by_label("USD, none").fill(amount)
        await page.get_by_role("button", name="Set", exact=True).click()
        await expect(page.locator("#budgets")).to_contain_text(f"${amount}")
    await page.get_by_role("button", name="Undo").click()
    await expect(page.locator("#budgets")).to_contain_text("$2.5")
    budgets = operator.console.services.llm.budgets
    assert (await budgets.state(BudgetKind.USER, "telegram:7")).limit_usd == 2.5


async def test_broadcast_is_counted_sent_stopped_and_resumed(operator: Operator) -> None:
    services = operator.console.services
    broadcasts = services.operators.broadcasts
    await services.chat.turns.current(ConversationKey(Surface.TELEGRAM, 7))
    page = await open_page(operator, "broadcasts")

    async def state() -> BroadcastState:
        return (await broadcasts.newest(1))[0].state

    await page.get_by_label("Text").fill("Down for ten minutes at 22:00.")
    await page.get_by_role("button", name="Count the chats").click()
    await expect(page.get_by_role("status")).to_contain_text("Nothing is sent yet")
    assert await state() is BroadcastState.DRAFT
    card, dialog = page.locator("ol > li"), page.get_by_role("dialog")
    send = card.get_by_role("link", name="Send")
    await send.click()
    await expect(dialog).to_contain_text("Down for ten minutes")
    await expect(dialog.get_by_role("link", name="Not yet")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    assert await state() is BroadcastState.DRAFT
    await send.click()
    await dialog.get_by_role("button", name="Send").click()
    await expect(card.locator(".chip")).to_have_text("sending")
    assert await state() is BroadcastState.RUNNING
    for button, shown, expected in (
        ("Stop", "stopped", BroadcastState.STOPPED),
        ("Continue sending", "sending", BroadcastState.RUNNING),
    ):
        await card.get_by_role("button", name=button).click()
        await expect(card.locator(".chip")).to_have_text(shown)
        assert await state() is expected


async def test_provider_is_removed_and_added_by_another_name_while_a_request_runs(
    operator: Operator, tmp_path: Path
) -> None:
    """A request in flight ends with the provider that it began with; the next one follows the change."""
    async with running_console(tmp_path / "patient", ALPHA_STALL_TIMEOUT="150") as console:
        operator.console = console
        go_on = asyncio.Event()
        console.servers["alpha"].script(llm.gate(go_on, after_pieces=1, then=llm.answer("slowly from alpha")))
        page = await open_page(operator, "providers")
        model = console.services.llm.models.create_llm_model_with_fallback("chat")
        async with model_request_stream(model, [ModelRequest.user_text_prompt("Hello?")]) as stream:
            events = aiter(stream)
            await anext(events)
            await page.get_by_role("button", name="Move beta up").click()
            await expect(page.locator("ol > li").first).to_have_id("p-beta")
            await page.locator("#p-alpha").get_by_role("link", name="Edit").click()
            await page.get_by_role("link", name="Remove").click()
            await page.get_by_role("button", name="Remove").click()
            await expect(page.get_by_role("status")).to_contain_text("alpha is removed")
            go_on.set()
            async for _ in events:
                pass
            assert "slowly from alpha" in str(stream.get())
        assert await operator.answered_by() == "beta"
        # The same server under another name is another provider.
        await page.get_by_role("link", name="Add a provider").click()
        await page.get_by_label("Name", exact=True).fill("gamma")
        await page.get_by_label("Base URL").fill(console.servers["alpha"].url)
        await page.get_by_label("One a line").fill("m")
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_contain_text("gamma is saved")
        await page.get_by_role("button", name="Move gamma up").click()
        await expect(page.locator("ol > li").first).to_have_id("p-gamma")
        assert await operator.answered_by() == "alpha"
        # A page that refreshes itself while the console closes would report it.
        await page.context.close()


async def test_mini_app_has_files_sent_by_the_bot(operator: Operator) -> None:
    sent: list[tuple[int, str, bytes]] = []

    async def send_file(person: int, name: str, data: bytes) -> bool:
        sent.append((person, name, data))
        return len(sent) > 1

    operator.console.daemon.send_file = send_file
    page = await operator.page("phone")
    data = init_data(BOT_TOKEN, ADMIN, time.time())
    await page.goto(f"{operator.console.base}/console/app#tgWebAppData={quote(data)}")
    await page.get_by_role("link", name="Usage").click()
    operator.tolerated.append("status of 409")
    button = page.get_by_role("link", name="Send to me in Telegram").first
    await button.click()
    await expect(page.get_by_role("alert").filter(has_text="did not take the file")).to_be_visible()
    await page.get_by_role("link", name="Usage").click()
    await button.click()
    await expect(page.get_by_role("status")).to_contain_text("is in your private chat with the bot")
    assert [(person, name) for person, name, _ in sent] == [(ADMIN, "usage-1-days.csv")] * 2
    assert sent[1][2].startswith(b"provider,requests")
