"""`/console` in Telegram: a link and a Mini App button for operators."""

import json
from http import HTTPStatus

import aiohttp

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
