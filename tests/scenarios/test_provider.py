"""`/provider` in Telegram."""

from services.admin.audit import Audit
from tests.support.bot_harness import ADMIN, FIRST, GROUP, PERSON, SECOND, BotHarness
from tests.support.fake_llm.server import answer, hang, status

UNKNOWN = "Unknown command. /help lists the commands."


async def told_admin(stage: BotHarness, command: str) -> str:
    """Return the reply to an operator."""
    question = stage.says(command, ADMIN)
    return (await stage.reply(ADMIN, after=question.id)).text


async def acts(stage: BotHarness) -> list[tuple[int, str, str | None]]:
    """Return the audit log, oldest first."""
    entries = await Audit(stage.services.infra.database, stage.services.infra.clock).recent()
    return [(entry.actor_id, entry.action, entry.target) for entry in reversed(entries)]


async def test_provider_shows_the_table(stage: BotHarness) -> None:
    stage.first.script(status(503), status(503))
    await stage.asks("Are you there?")
    text = await told_admin(stage, "/provider")
    first, second = text.split("\n\n")[1:3]
    assert first.startswith("1. a: cooling down until ")
    assert "HTTP 503" in first
    assert "1 request, 1 failed" in first
    assert second.startswith("2. b: preferred until ")
    assert "models: n" in second
    assert not await acts(stage), "looking is no act"


async def test_provider_shows_what_a_model_refuses(stage: BotHarness) -> None:
    """Learned from a refusal; the same candidate answered without it."""
    refused = {"error": {"message": "registry.ollama.ai/library/m does not support tools", "type": "api_error"}}
    stage.first.script(status(400, refused), answer(FIRST))
    assert (await stage.asks("Are you there?")).text == FIRST
    first, second = (await told_admin(stage, "/provider")).split("\n\n")[1:3]
    assert "\n   m works without tools" in first
    assert "works without" not in second


async def test_provider_force_and_clear(stage: BotHarness) -> None:
    assert (await told_admin(stage, "/provider force b 10m")).startswith("b is asked first until ")
    assert (await stage.asks("Are you there?")).text == SECOND
    assert "b: forced until" in await told_admin(stage, "/provider")
    assert (await told_admin(stage, "/provider clear")).startswith("Cleared the forced and the preferred provider")
    assert (await stage.asks("And now?")).text == FIRST
    assert await acts(stage) == [(ADMIN, "provider.force", "b"), (ADMIN, "provider.clear", None)]


async def test_provider_forced_falls_back_on_failure(stage: BotHarness) -> None:
    stage.second.default = status(503)
    await told_admin(stage, "/provider force b")
    assert (await stage.asks("Are you there?")).text == FIRST


async def test_provider_cooldown_and_reset(stage: BotHarness) -> None:
    assert (await told_admin(stage, "/provider cooldown a 5m")).startswith("a cools down until ")
    assert (await stage.asks("Are you there?")).text == SECOND
    assert (await told_admin(stage, "/provider reset a")).startswith("a is reset")
    assert (await stage.asks("And now?")).text == FIRST
    assert await acts(stage) == [(ADMIN, "provider.cooldown", "a"), (ADMIN, "provider.reset", "a")]


async def test_provider_test_asks_this_provider(stage: BotHarness) -> None:
    stage.second.default = status(401)
    works, fails = await told_admin(stage, "/provider test a"), await told_admin(stage, "/provider test b")
    assert works.startswith("a works: m answered in ")
    assert fails.startswith("b does not work: n: HTTP 401")
    assert "sk-" not in fails
    assert [len(server.requests) for server in (stage.first, stage.second)] == [1, 1]
    assert await acts(stage) == [(ADMIN, "provider.test", "a"), (ADMIN, "provider.test", "b")]
    assert "b: healthy" in await told_admin(stage, "/provider"), "a test by hand changes nothing"


async def test_provider_usage_is_shown_for_bad_arguments(stage: BotHarness) -> None:
    assert (await told_admin(stage, "/provider dance")).startswith("Usage: /provider [force")
    assert (await told_admin(stage, "/provider force nobody")).startswith("There is no such provider.")
    assert not await acts(stage)


async def test_provider_buttons_run_the_commands(stage: BotHarness) -> None:
    """The message becomes the table with the result below."""
    stage.says("/provider", ADMIN)
    message = await stage.reply(ADMIN)
    assert message.labels == [
        "force a", "test a", "cooldown", "reset", "force b", "test b", "cooldown", "reset", "clear", "refresh",
    ]  # fmt: skip
    stage.presses(message, "force b")
    await stage.until(lambda: "b is asked first until " in message.text)
    assert "2. b: forced until " in message.text
    assert (await stage.asks("Are you there?")).text == SECOND
    stage.presses(message, "desk:clear:")
    await stage.until(lambda: "Cleared the forced and the preferred provider" in message.text)
    stage.presses(message, "desk:cooldown:a")
    await stage.until(lambda: "1. a: cooling down until " in message.text)
    stage.presses(message, "desk:reset:a")
    await stage.until(lambda: "a is reset" in message.text)
    stage.presses(message, "test a")
    await stage.until(lambda: "a works: m answered in" in message.text)
    stage.presses(message, "refresh")
    await stage.until(lambda: "a works" not in message.text)
    assert len(stage.chat(ADMIN).answers()) == 1
    assert [action for _, action, _ in await acts(stage)] == [
        "provider.force", "provider.clear", "provider.cooldown", "provider.reset", "provider.test",
    ]  # fmt: skip


async def test_provider_does_not_wait_behind_an_answer(stage: BotHarness) -> None:
    """An operator whose own answer hangs needs it most."""
    stage.first.default = hang()
    stage.says("Are you there?", ADMIN)
    await stage.first.arrival(1)
    assert (await told_admin(stage, "/provider")).startswith("Providers by priority")


async def test_provider_is_unknown_to_non_operators(stage: BotHarness) -> None:
    """In private and in groups; a copied button does nothing."""
    stage.says("/provider")
    assert (await stage.reply()).text == UNKNOWN
    stage.says("/provider force b")
    assert (await stage.reply()).text == UNKNOWN
    stage.says("/provider", ADMIN)
    table = await stage.reply(ADMIN)
    stage.says("/provider", GROUP, user_id=ADMIN)
    in_group = await stage.reply(GROUP)
    query = stage.presses(in_group, "force b", PERSON)
    assert await stage.toast(query) == UNKNOWN
    assert table.text.startswith("Providers by priority")
    assert (await stage.asks("Are you there?")).text == FIRST
    assert not await acts(stage)


async def test_provider_of_a_non_operator_in_a_group_is_ignored(stage: BotHarness) -> None:
    stage.says("/provider", GROUP, user_id=PERSON)
    await stage.asks("/ask Are you there?", GROUP, user_id=PERSON)
    assert len(stage.chat(GROUP).answers()) == 1
