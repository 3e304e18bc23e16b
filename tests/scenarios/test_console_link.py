"""`/console` in Telegram: a link and a Mini App button for operators."""

import json
import re
from http import HTTPStatus

import aiohttp
import pytest

from services.admin.audit import Audit
from tests.support.bot_harness import ADMIN, GROUP, PERSON, BotHarness
from tests.support.processes.redis_server import free_port

PUBLIC = "https://bot.example.org"


async def test_console_command_signs_its_operator_in(empty_stage: BotHarness) -> None:
    stage, port = empty_stage, free_port()
    token = "a-long-random-word-of-the-operator"
    await stage.start(WEB_PORT=str(port), WEB_TOKEN=token, WEB_PUBLIC_URL=PUBLIC)
    stage.says("/console")
    assert (await stage.reply(PERSON)).text.startswith("Unknown command")
    stage.says("/console", GROUP, user_id=ADMIN)
    assert PUBLIC not in (await stage.reply(GROUP)).text
    stage.says("/console", ADMIN)
    reply = await stage.reply(ADMIN)
    sent = [call for call in stage.telegram.calls_of("sendMessage") if "/console/link/" in call.params.get("text", "")]
    assert json.loads(sent[-1].params["reply_markup"])["inline_keyboard"][0][0]["web_app"] == {
        "url": f"{PUBLIC}/console/app"
    }
    path = reply.text.rpartition(PUBLIC)[2]
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"http://127.0.0.1:{port}{path}", allow_redirects=False) as response,
    ):
        assert response.status == HTTPStatus.SEE_OTHER
        # The public address is https, so the session goes over nothing else.
        assert "Secure" in response.headers["Set-Cookie"]
    entries = await Audit(stage.services.infra.database, stage.services.infra.clock).recent()
    assert [(entry.actor_id, entry.action) for entry in entries] == [
        (ADMIN, "console.sign_in"),
        (ADMIN, "console.link"),
    ]
    assert path.rpartition("/")[2] not in stage.log


@pytest.mark.parametrize(
    ("path", "begins"),
    [
        ("settings.env", b"# Nothing is set in the web console."),
        ("usage.csv", b"provider,requests"),
        ("audit.csv", b"at,actor_id,action"),
    ],
)
async def test_files_of_the_console_arrive_in_telegram(empty_stage: BotHarness, path: str, begins: bytes) -> None:
    """The file of a console in which nothing is set was empty, and Telegram takes no empty file."""
    stage, port = empty_stage, free_port()
    await stage.start(WEB_PORT=str(port), WEB_TOKEN="a-long-random-word-of-the-operator")
    stage.says("/console", ADMIN)
    address = (await stage.reply(ADMIN)).text.split()[-1]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        async with http.post(address) as response:
            form = re.search(r'name="form" value="([^"]+)"', await response.text())
        assert form is not None
        async with http.post(f"http://127.0.0.1:{port}/console/{path}/send", data={"form": form[1]}) as response:
            assert (response.status, "is in your private chat" in await response.text()) == (HTTPStatus.OK, True)
    sent = [message.document for message in stage.chat(ADMIN).messages if message.document is not None]
    assert len(sent) == 1
    assert sent[0].startswith(begins)
