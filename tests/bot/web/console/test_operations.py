"""Moderation queue, dead letters, API tokens and budgets in the console, over HTTP."""

import re
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from pydantic_ai.direct import model_request
from pydantic_ai.messages import ModelRequest

from bot.operators.console_links import ConsoleLinks
from core.messages import ConversationKey, Surface
from services.admin.broadcasts import BroadcastState
from services.llm.request import RequestSpec
from services.llm.routing.admission.budget_guard import BudgetKind
from services.moderation.domain.incident import Resolution
from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.settings import GroupSettings
from tests.bot.web.console.conftest import ADMIN, ConsoleBrowser
from tests.support.console_harness import offer_dead_letters, offer_moderation, running_console
from tests.support.fake_llm import server as llm
from tests.support.moderation_harness import GROUP, NEWCOMER, RecordingGroup

pytestmark = pytest.mark.integration

PAGES = ("/moderation", "/dead", "/broadcasts", "/tokens", "/more", "/usage", "/compare", "/frame?page=dead")
ADVERT = "remote work x, 2 hours a day, write to https://t.me/scam <b>now</b>"


async def with_moderation(browser: ConsoleBrowser, *, admin: int = ADMIN) -> RecordingGroup:
    """Moderate a group whose admin is `admin`, and let the bot have deleted one advert in it."""
    harness, group = await offer_moderation(browser, admin=admin)
    await harness.pipeline.handle(harness.message(ADVERT), harness.settings)
    return group


async def sign_in_as_person(browser: ConsoleBrowser) -> None:
    infra = browser.services.infra
    links = ConsoleLinks(infra.redis, infra.settings.redis_prefix)
    await browser.submit(f"/console/link/{await links.create(ADMIN)}", hidden={})


class TestPages:
    @pytest.mark.parametrize("language", ["en", "ru"])
    async def test_page_has_every_text_and_obeys_the_policy(self, browser: ConsoleBrowser, language: str) -> None:
        await offer_dead_letters(browser, "a bug")
        await with_moderation(browser)
        await sign_in_as_person(browser)
        paths = [*PAGES, "/moderation?show=done", "/dead/1/drop"]
        for path in paths:
            async with browser.http.get(
                f"{browser.base}/console{path}", headers={"Accept-Language": language}
            ) as response:
                page = await response.text()
            assert response.status == 200, path
            assert not re.search(r"\bweb-[a-z]", page.replace("web-app", "")), path
            assert "style=" not in page
            assert "<script>" not in page

    async def test_page_asks_for_a_sign_in(self, browser: ConsoleBrowser) -> None:
        for path in (*PAGES, "/tokens/editor", "/dead/1/drop", "/budgets.csv"):
            assert 'name="token"' in await browser.open(f"/console{path}"), path

    async def test_act_without_the_field_of_the_session_is_refused(self, browser: ConsoleBrowser) -> None:
        await offer_dead_letters(browser, "a bug")
        await browser.sign_in()
        for path in ("/tokens", "/dead/retry", "/dead/1/drop", "/moderation/1/ban", "/budgets"):
            await browser.submit(f"/console{path}", hidden={"form": "guessed"}, name="x")
            assert browser.status == 403, path
        assert await browser.daemon.dead_letters.newest() if browser.daemon.dead_letters else False

    async def test_process_without_telegram_says_so(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        for path in ("/moderation", "/dead"):
            assert "Telegram does not run in this process" in await browser.open(f"/console{path}")
        await browser.submit("/console/dead/1/retry")
        assert browser.status == 404


class TestDeadLetters:
    async def test_letter_is_queued_again_and_its_content_is_not_shown(self, browser: ConsoleBrowser) -> None:
        queue = await offer_dead_letters(browser, "TypeError: a bug")
        await browser.sign_in()
        assert "1 dead letter" in browser.page
        page = await browser.open("/console/dead")
        assert "TypeError: a bug" in page
        assert "From a private chat" in page
        assert "alpha: Answers" in page, "the strip of states, as on every page beside the overview"
        assert "a private word" not in page
        await browser.submit("/console/dead/1/retry")
        assert "is queued again" in browser.page
        assert [job.payload for job in queue.jobs] == ['{"text": "a private word"}']
        assert "queued a dead letter again" in await browser.open("/console/audit")

    async def test_discarding_asks_first(self, browser: ConsoleBrowser) -> None:
        await offer_dead_letters(browser, "a bug")
        await browser.sign_in()
        await browser.open("/console/dead/1/drop")
        await browser.submit("/console/dead/1/drop")
        assert "No dead letters" in browser.page
        await browser.submit("/console/dead/1/drop")
        assert browser.status == 409

    async def test_all_letters_are_queued_the_oldest_first(self, browser: ConsoleBrowser) -> None:
        queue = await offer_dead_letters(browser, "first", "second")
        await browser.sign_in()
        await browser.open("/console/dead")
        await browser.submit("/console/dead/retry")
        assert [job.id.split(":")[0][:4] for job in queue.jobs] == ["tg-0", "tg-1"]

    async def test_more_letters_than_the_page_has_room_for_are_counted(self, browser: ConsoleBrowser) -> None:
        queue = await offer_dead_letters(browser, *["a bug"] * 101)
        assert "100 or more dead letters" in await browser.sign_in()
        assert "Retry these 100" in await browser.open("/console/dead")
        await browser.submit("/console/dead/retry")
        assert len(queue.jobs) == 100
        assert "1 dead letter<" in await browser.open("/console")


class TestFiles:
    @pytest.mark.parametrize("path", ["usage.csv", "budgets.csv", "settings.env", "compare.csv"])
    async def test_file_is_sent_to_the_operator_who_signed_in_by_telegram(
        self, browser: ConsoleBrowser, path: str
    ) -> None:
        sent: list[tuple[int, str, bytes]] = []
        is_taken = True

        async def send_file(person: int, name: str, data: bytes) -> bool:
            sent.append((person, name, data))
            return is_taken

        await sign_in_as_person(browser)
        await browser.submit(f"/console/{path}/send")
        assert browser.status == 409, "no Telegram in this process"
        browser.daemon.send_file = send_file
        await browser.submit(f"/console/{path}/send")
        assert "is in your private chat with the bot" in browser.page
        async with browser.http.get(f"{browser.base}/console/{path}") as response:
            assert [(ADMIN, response.content_disposition.filename, await response.read())] == sent
        assert sent[0][2], "Telegram takes no empty file"
        is_taken = False
        await browser.submit(f"/console/{path}/send")
        assert (browser.status, "did not take the file" in browser.page) == (409, True)

    async def test_holder_of_the_token_has_no_chat_to_send_it_to(self, browser: ConsoleBrowser) -> None:
        async def send_file(_person: int, _name: str, _data: bytes) -> bool:
            raise AssertionError

        browser.daemon.send_file = send_file
        await browser.sign_in()
        await browser.submit("/console/usage.csv/send")
        assert browser.status == 409


class TestModeration:
    async def test_admin_of_the_group_reads_the_text_and_decides(self, browser: ConsoleBrowser) -> None:
        group = await with_moderation(browser)
        await sign_in_as_person(browser)
        page = await browser.open("/console/moderation")
        assert "https[:]//t[.]me/scam &lt;b&gt;now" in page
        number = page.split('id="card-')[1].split('"')[0]
        await browser.submit(f"/console/moderation/{number}/ban")
        assert f"Card {number} is decided" in browser.page
        assert ("ban", NEWCOMER) in group.actions
        # The report offers to take it back.
        assert f'action="/console/moderation/{number}/undo"' in browser.page.partition("<h1>")[0]
        await browser.submit(f"/console/moderation/{number}/undo")
        assert ("unban", NEWCOMER) in group.actions
        assert f"Card {number} is undone" in browser.page
        page = await browser.open("/console/audit")
        assert "banned the author of an incident in" in page
        assert str(GROUP) in page

    async def test_figures_and_groups_are_shown_to_every_operator(self, browser: ConsoleBrowser) -> None:
        harness, group = await offer_moderation(browser, admin=1)
        for number, text in enumerate(("remote work one, write to https://t.me/scam", "two, at https://t.me/scams")):
            author = Author(NEWCOMER + number, AuthorKind.USER, "Ann")
            await harness.pipeline.handle(replace(harness.message(text, 10 + number), author=author), harness.settings)
        await harness.groups.change(GroupSettings(-5))
        incident = (await harness.incidents.list_undecided())[0]
        await harness.actions.resolve(incident, Resolution.UNDO, harness.settings, "1")
        await browser.sign_in()
        page = re.sub(r"<[^>]+>|\s+", " ", await browser.open("/console/moderation"))
        page = re.sub(r" +", " ", page)
        assert "Judged today 2 of 2 messages; 2 by a model" in page
        assert "Acted on today 2" in page
        assert "Undone, 30 days 50.0% 1 of 2" in page
        assert "Groups 1 of 2 moderated" in page
        assert f"group {GROUP} enforcing standard" in page
        assert page.index(f"group {GROUP}") < page.index("group -5 off")
        assert "job scam 1 of 2" in page
        group.admins = replace(group.admins, title="Cats & Dogs")
        page = await browser.open("/console/moderation")
        assert page.count("Cats &amp; Dogs") == 3, "on the card and in the list of groups, in place of their ids"
        assert f"group {GROUP}" not in page
        assert "remote work" not in page

    async def test_second_decision_is_told_that_it_is_late(self, browser: ConsoleBrowser) -> None:
        await with_moderation(browser)
        await sign_in_as_person(browser)
        page = await browser.open("/console/moderation")
        number = page.split('id="card-')[1].split('"')[0]
        for status in (200, 409):
            await browser.submit(f"/console/moderation/{number}/undo")
            assert browser.status == status

    @pytest.mark.parametrize("signed_in_by", ["token", "link"])
    async def test_operator_who_is_no_admin_there_sees_no_text_and_cannot_act(
        self, browser: ConsoleBrowser, signed_in_by: str
    ) -> None:
        group = await with_moderation(browser, admin=1)
        await (browser.sign_in() if signed_in_by == "token" else sign_in_as_person(browser))
        page = await browser.open("/console/moderation")
        assert "job scam" in page
        assert "remote work" not in page
        number = page.split('id="card-')[1].split('"')[0]
        before = list(group.actions)
        await browser.submit(f"/console/moderation/{number}/ban")
        assert browser.status == 403
        assert group.actions == before


class TestTokens:
    async def test_new_token_is_shown_once_and_opens_the_endpoint_until_it_is_revoked(
        self, browser: ConsoleBrowser
    ) -> None:
        async def status(token: str) -> int:
            headers = {"Authorization": f"Bearer {token}"}
            async with browser.http.get(f"{browser.base}/v1/models", headers=headers) as response:
                return response.status

        await browser.sign_in()
        await browser.open("/console/tokens")
        await browser.submit("/console/tokens", name="wiki", budget_day="1.5", models="alpha/*")
        token = browser.page.split("<code>")[1].split("</code>")[0]
        assert await status(token) == 200
        for path in ("/tokens", "/audit", "/tokens/wiki"):
            assert token not in await browser.open(f"/console{path}")
        assert "alpha/*" in await browser.open("/console/tokens")
        await browser.open("/console/tokens/wiki/revoke")
        await browser.submit("/console/tokens/wiki/revoke")
        assert await status(token) == 401
        page = await browser.open("/console/audit")
        assert "made the API token" in page
        assert "revoked the API token" in page

    async def test_limits_are_changed_with_what_was_before_in_the_audit_log(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/tokens")
        await browser.submit("/console/tokens", name="ci", running="2")
        await browser.open("/console/tokens/ci")
        await browser.submit("/console/tokens/ci", running="0", remote_consent="no")
        assert "this machine only" in browser.page
        assert "now running 0, remote_consent no; before running 2" in await browser.open("/console/audit")

    async def test_invalid_field_makes_no_token(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/tokens")
        for fields in (
            {"name": "<b>"},
            {"name": "../x"},
            {"name": "ok", "budget_day": "nan"},
            {"name": "ok", "running": "-1"},
            {"name": "ok", "requests_per_minute": "9" * 40},
            {"name": "ok", "models": "no-provider"},
        ):
            await browser.submit("/console/tokens", **fields)
            assert browser.status == 422, fields
            assert "<code>" not in browser.page
            assert 'value="<b>' not in browser.page


class TestUsage:
    async def test_usage_is_shown_by_model_and_by_purpose(self, browser: ConsoleBrowser) -> None:
        await browser.answered_by()
        spec = RequestSpec("moderation")
        await model_request(
            browser.services.llm.models.create_routed_model(spec), [ModelRequest.user_text_prompt("Hello?")]
        )
        await browser.sign_in()
        for group, names in {"provider": ["alpha"], "model": ["alpha/m"], "purpose": ["chat", "moderation"]}.items():
            lines = (await browser.open(f"/console/usage.csv?by={group}")).splitlines()
            assert [line.split(",")[0] for line in lines] == [group, *names]
            assert sum(int(line.split(",")[1]) for line in lines[1:]) == 2
        page = await browser.open("/console/usage?by=purpose&days=7")
        assert "<strong>Moderation</strong>" in page
        assert 'href="/console/usage.csv?days=7&amp;by=purpose"' in page
        # The rows and their sum are those of the file.
        assert re.search(r"<tfoot><tr><td>Total</td><td[^>]*>2</td>", page)

    async def test_part_that_the_database_does_not_answer_takes_no_other(self, browser: ConsoleBrowser) -> None:
        await browser.answered_by()
        await browser.sign_in()
        assert "alpha" in await browser.open("/console/usage")
        database = browser.services.infra.database
        await database.run(lambda connection: connection.exec_driver_sql("ALTER TABLE usage_days RENAME TO elsewhere"))
        page = await browser.open("/console/usage")
        assert browser.status == 200
        assert "The database does not answer" in page
        assert "<h2>Requests</h2></header>\n<figure>" in page, "the plots of the history"


class TestBudgets:
    async def test_budget_of_a_person_is_set_and_exported(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/usage")
        await browser.submit("/console/budgets", kind="user", owner="7", amount="2.50")
        assert "user 7" in browser.page
        state = await browser.services.llm.budgets.state(BudgetKind.USER, "telegram:7")
        assert state.limit_usd == 2.5
        assert "user 7,2.500000,0.000000" in await browser.open("/console/budgets.csv")
        assert "set a budget" in await browser.open("/console/audit")

    async def test_unreadable_budget_is_refused(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/usage")
        for owner, amount in (("seven", "1"), ("7", "much"), ("7", "-1"), ("", "1"), ("²", "1")):
            await browser.submit("/console/budgets", kind="user", owner=owner, amount=amount)
            assert browser.status == 422, owner
            assert f'value="{amount}"' in browser.page


class TestAudit:
    async def test_acts_are_shown_by_kind_and_in_pages(self, browser: ConsoleBrowser) -> None:
        for number in range(60):
            await browser.services.operators.audit.record(7, "provider.force", f"target-{number}")
        await browser.sign_in()
        page = await browser.open("/console/audit?kind=providers")
        assert "target-59" in page
        assert "signed in to the console" not in page
        older = page.split('href="?before=')[1].split('"')[0].replace("&amp;", "&")
        page = await browser.open(f"/console/audit?before={older}")
        assert "target-9<" in page
        assert "target-10<" not in page
        assert "target-59<" in await browser.open("/console/audit?kind=nonsense&before=x&after=-1")

    async def test_file_has_the_acts_of_the_kind_as_they_are_stored(self, browser: ConsoleBrowser) -> None:
        audit = browser.services.operators.audit
        await audit.record(7, "provider.force", "beta", "for 30m, before: none")
        await audit.record(7, "user.ban", "=1+1", None)
        await browser.sign_in()
        lines = (await browser.open("/console/audit.csv?kind=providers")).splitlines()
        assert [line.partition(",")[2] for line in lines] == [
            "actor_id,action,target,detail",
            '7,provider.force,beta,"for 30m, before: none"',
        ]
        assert "7,user.ban,'=1+1," in await browser.open("/console/audit.csv")


class TestBroadcasts:
    async def test_broadcast_is_counted_confirmed_and_stopped(self, browser: ConsoleBrowser) -> None:
        turns, broadcasts = browser.services.chat.turns, browser.services.operators.broadcasts
        for person in (7, 8):
            await turns.current(ConversationKey(Surface.TELEGRAM, person))
        await browser.sign_in()
        await browser.open("/console/broadcasts")
        await browser.submit("/console/broadcasts", text="Down on <b>Sunday</b>")
        assert "This message would go to 2 chats." in browser.page
        assert "Down on &lt;b&gt;Sunday" in browser.page
        (draft,) = await broadcasts.newest(5)
        assert draft.state is BroadcastState.DRAFT
        send = f"/console/broadcasts/{draft.id}/send"
        assert f'<a class="b main" href="{send}" data-confirm>' in browser.page
        question = await browser.open(send)
        assert "Send this message to 2 chats?" in question
        assert "Down on &lt;b&gt;Sunday" in question
        assert (await broadcasts.newest(1))[0].state is BroadcastState.DRAFT
        await browser.submit(send)
        assert (await broadcasts.newest(1))[0].state is BroadcastState.RUNNING
        assert f'action="{send}"' not in await browser.open(send)
        assert browser.status == 409
        await browser.submit(f"/console/broadcasts/{draft.id}/stop")
        assert "is stopped" in browser.page
        await browser.submit(f"/console/broadcasts/{draft.id}/stop")
        assert browser.status == 409
        page = await browser.open("/console/audit")
        assert "started a broadcast" in page
        assert "stopped a broadcast" in page

    async def test_draft_is_discarded_and_an_empty_or_long_one_is_refused(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/broadcasts")
        for text in ("", "  ", "x" * 4097, "\U0001f600" * 2049):
            await browser.submit("/console/broadcasts", text=text)
            assert browser.status == 422
        await browser.submit("/console/broadcasts", text="x")
        (draft,) = await browser.services.operators.broadcasts.newest(5)
        assert "would go to 0 chats" in browser.page
        assert f"/console/broadcasts/{draft.id}/send" not in browser.page
        await browser.submit(f"/console/broadcasts/{draft.id}/discard")
        assert "No broadcasts yet" in browser.page


class TestProviderForm:
    async def test_each_aspect_is_reported_before_anything_is_saved(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers/alpha")
        url = browser.servers["alpha"].url
        fields = {"kind": "openai_compatible", "models": "m", "base_url": url}
        await browser.submit("/console/providers/alpha", **fields, key="kx-typed-here", act="test")
        for shown in ("Server reached", "Key accepted", "m answers", "Streams", "Accepts tools", "Sees pictures"):
            assert shown in browser.page
        assert "Type it once more" in browser.page
        assert "kx-typed-here" not in browser.page
        assert browser.services.llm.configuration.current.revision == 0

    async def test_models_are_picked_from_the_server_s_list(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/new-provider")
        url = browser.servers["alpha"].url
        fields = {"kind": "openai_compatible", "base_url": url, "id": "new"}
        await browser.submit("/console/new-provider", **fields, models="", act="catalogue")
        assert re.findall(r'name="add" value="([^"]+)"', browser.page) == ["m", "n"]
        await browser.submit("/console/new-provider", **fields, models="m", q="N", act="catalogue")
        assert re.findall(r'name="add" value="([^"]+)"', browser.page) == ["n"]
        await browser.submit("/console/new-provider", **fields, models="m", add="n", act="save")
        current = browser.services.llm.configuration.current.providers
        assert next(each for each in current if each.id == "new").models == ("m", "n")
        # An id that was a path of the form before.
        assert 'action="/console/providers/new"' in await browser.open("/console/providers/new")

    async def test_server_that_does_not_answer_is_said_in_the_form(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/new-provider")
        with llm.refusing_url() as url:
            fields = {"kind": "openai_compatible", "base_url": url, "id": "x", "models": "m"}
            await browser.submit("/console/new-provider", **fields, act="catalogue")
        assert browser.status == 422
        assert "cannot be listed: connection refused" in browser.page

    async def test_search_for_local_servers_shows_a_page(self, browser: ConsoleBrowser) -> None:
        await browser.sign_in()
        await browser.open("/console/providers")
        await browser.submit("/console/local-servers")
        assert "Servers on this machine" in browser.page
        page = await browser.open("/console/new-provider?id=ollama&kind=ollama&base_url=http://x/v1&models=%3Cb%3E")
        assert 'value="http://x/v1"' in page
        assert "&lt;b&gt;" in page

    async def test_first_provider_is_added_where_the_environment_has_none(self, tmp_path: Path) -> None:
        async with (
            running_console(tmp_path / "data", AVAILABLE_PROVIDERS="{}") as console,
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
        ):
            browser = ConsoleBrowser(console.services, console.servers, console.base, console.daemon, http)
            assert "No provider can be asked" in await browser.sign_in()
            await browser.open("/console/new-provider")
            fields = {"kind": "openai_compatible", "base_url": console.servers["alpha"].url, "id": "gamma"}
            await browser.submit("/console/new-provider", **fields, models="m", act="save")
            assert await browser.answered_by() == "alpha"
