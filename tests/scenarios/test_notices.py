"""Notices to operators."""

from tests.support.bot_harness import ADMIN, FIRST, SECOND, BotHarness
from tests.support.fake_llm.server import answer, status

LOST = "a failed (HTTP 503 (server_error)). b answers now. /provider shows more."
BACK = "a answers again, in place of b."


async def test_notice_of_a_switch_and_of_the_return(empty_stage: BotHarness) -> None:
    """Once each, however often the provider fails within five minutes."""
    stage = empty_stage
    await stage.start(PROVIDER_COOLDOWN="0.3", A_RETRIES="0")
    for _ in range(2):
        stage.first.script(status(503))
        assert (await stage.asks("Are you there?")).text == SECOND
        await stage.quiet(0.35)
        assert (await stage.asks("And now?")).text == FIRST
    texts = await stage.until(lambda: len(texts := stage.chat(ADMIN).texts()) == 2 and texts)
    assert texts == [LOST, BACK]
    await stage.quiet(0.2)
    assert len(stage.chat(ADMIN).texts()) == 2


async def test_notice_of_a_rejected_key(empty_stage: BotHarness) -> None:
    """Once, with instructions, without the key."""
    stage = empty_stage
    await stage.start(ADMIN_IDS=f"{ADMIN},{ADMIN + 1}")
    stage.first.default = status(401)
    await stage.asks("Are you there?")
    await stage.asks("And now?", 8)
    for admin in (ADMIN, ADMIN + 1):
        texts = await stage.until(lambda admin=admin: len(texts := stage.chat(admin).texts()) == 2 and texts)
        assert texts[0].startswith("a does not accept its key, account or model: HTTP 401")
        assert texts[0].endswith("/provider reset a brings it back.")
        assert "sk-" not in "".join(texts)


async def test_notice_and_table_hold_the_servers_words_and_no_chat_does(empty_stage: BotHarness) -> None:
    """Masks the key in every field; a text that may quote the prompt is not shown."""
    stage, key = empty_stage, "kx-9f3ab27c51d04e68-Zz"
    await stage.start(A_API_KEY=key, A_RETRIES="0")
    stage.first.default = status(401, {"error": {"message": f"Suspended: {key}, pay first.", "code": key}})
    assert (await stage.asks("My secret plan?")).text == SECOND
    notice, *_ = await stage.until(stage.chat(ADMIN).texts)
    assert 'HTTP 401 (***). It said: "Suspended: ***, pay first.".' in notice
    stage.says("/provider", ADMIN)
    table = await stage.until(lambda: next((text for text in stage.chat(ADMIN).texts() if "1. a:" in text), None))
    assert 'it said: "Suspended: ***, pay first."' in table
    assert "Suspended" not in "".join(stage.chat().texts())
    (event,) = stage.events("provider.failed")
    assert event["reason"] == "HTTP 401 (***)"
    assert event["words"] == "Suspended: ***, pay first."
    stage.second.default = status(422, {"error": {"message": "cannot parse: My secret plan?"}})
    await stage.asks("My secret plan?")
    assert "My secret plan?" not in str(stage.events("provider.failed")) + "".join(stage.chat(ADMIN).texts())


async def test_notice_reaches_others_despite_an_unreachable_admin(empty_stage: BotHarness) -> None:
    stage = empty_stage
    await stage.start(ADMIN_IDS=f"{ADMIN},{ADMIN + 1}")
    stage.telegram.block(ADMIN)
    stage.first.default = status(503)
    await stage.asks("Are you there?")
    await stage.until(lambda: stage.chat(ADMIN + 1).texts() == [LOST])


async def test_notice_of_an_outage_and_of_its_end(empty_stage: BotHarness) -> None:
    """One each, however many people ask meanwhile."""
    stage = empty_stage
    await stage.start(PROVIDER_COOLDOWN="0.3", A_RETRIES="0", B_RETRIES="0")
    stage.first.default = stage.second.default = status(503)
    for question in ("Are you there?", "Hello?"):
        await stage.asks(question)
    stage.first.default = stage.second.default = answer(FIRST)
    await stage.quiet(0.35)
    await stage.asks("And now?")
    texts = await stage.until(lambda: len(texts := stage.chat(ADMIN).texts()) >= 3 and texts)
    nobody = [text for text in texts if text.startswith("No AI provider answers. ")]
    assert nobody == [
        "No AI provider answers. a: HTTP 503 (server_error); b: HTTP 503 (server_error). /provider shows more."
    ]
    assert [text for text in texts if text.endswith("answers again; requests are served.")]


async def test_no_notice_of_a_rejected_request(stage: BotHarness) -> None:
    """A user's request that both providers reject is no news for operators."""
    stage.first.default = stage.second.default = status(400)
    assert (await stage.asks("Are you there?")).text.startswith("The AI providers rejected this request")
    stage.first.default = answer(FIRST)
    await stage.asks("And now?")
    assert not stage.chat(ADMIN).texts()
