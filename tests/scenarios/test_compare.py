"""/compare: two models side by side, a vote, and thumbs under answers."""

import pytest

from tests.support.bot_harness import FIRST, PERSON, SECOND, STOP, BotHarness
from tests.support.fake_llm.server import answer, hang, status
from tests.support.fake_telegram.chats import Message
from tests.support.sounds import ogg


async def sides(stage: BotHarness, *, after: int) -> tuple[Message, Message]:
    """Waits for the messages of both sides to be final."""

    def found() -> tuple[Message, Message] | None:
        shown = [m for m in stage.chat().answers() if m.id > after and m.text[:1] in {"A", "B"}]
        is_done = len(shown) >= 2 and not any(STOP in m.labels or m.text.endswith("…") for m in shown[:2])
        return (shown[0], shown[1]) if is_done else None

    pair = await stage.until(found)
    assert pair is not None
    return pair


async def test_two_models_answer_side_by_side_and_are_voted_on(stage: BotHarness) -> None:
    question = stage.says("/compare What is a leap year?")
    a, b = await sides(stage, after=question.id)
    assert (a.text, b.text) == (f"A\n\n{FIRST}", f"B\n\n{SECOND}")
    card = await stage.seen(lambda m: m.text == "Which answer is better?")
    assert card.labels == ["A", "B", "Equally good"]
    assert "a/m" not in card.text, "a vote is blind"
    assert (await stage.toast(stage.presses(card, "A", 8))).startswith("Only the person who asked")
    stage.presses(card, "B")
    await stage.until(lambda: card.text == "You chose B.\nA: a/m\nB: b/n")
    stage.says("/compare stats")
    shown = (await stage.reply()).text
    assert shown.index("b/n\n100% of comparisons") < shown.index("a/m\n0% of comparisons")


async def test_models_can_be_named_and_no_other_steps_in(stage: BotHarness) -> None:
    stage.second.default = status(500)
    question = stage.says("/compare b/n A/m Hello?")
    a, b = await sides(stage, after=question.id)
    assert a.text == "A\n\nThis model did not answer."
    assert b.text == f"B\n\n{FIRST}"
    assert [request.json["model"] for request in stage.first.requests] == ["m"]
    await stage.quiet()
    assert not any("better" in text for text in stage.chat().texts()), "there is nothing to vote on"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("/compare", "asks two models"),
        ("/compare a/m b/n", "asks two models"),
        ("/compare a/m a/m Hello?", "Both sides are a/m"),
        ("/compare a/m Hello?", "Name two models"),
        ("/compare a/zzz b/n Hello?", "no model a/zzz"),
        ("/compare stats", "no votes yet"),
    ],
)
async def test_an_invalid_pair_asks_no_model(stage: BotHarness, command: str, said: str) -> None:
    stage.says(command)
    assert said in (await stage.reply()).text
    assert not stage.first.requests + stage.second.requests


async def test_a_recording_is_not_compared_and_that_is_said(stage: BotHarness) -> None:
    file_id = stage.telegram.add_file(ogg(), "voice/a.ogg")
    voice = {"voice": {"file_id": file_id, "file_unique_id": "u", "duration": 2}}
    command = [{"type": "bot_command", "offset": 0, "length": 8}]
    stage.says("", extra={**voice, "caption": "/compare What is this?", "caption_entities": command})
    assert (await stage.reply()).text.startswith("/compare takes text, pictures and documents, but no recordings.")


async def test_stop_ends_both_sides(stage: BotHarness) -> None:
    stage.first.default = stage.second.default = hang()
    question = stage.says("/compare Hello?")
    growing = await stage.seen(lambda m: STOP in m.labels, after=question.id)
    stage.presses(growing, STOP)
    a, b = await sides(stage, after=question.id)
    assert a.text.endswith("Stopped.")
    assert b.text.endswith("Stopped.")


async def test_thumbs_under_an_answer_are_votes(stage: BotHarness) -> None:
    shown = await stage.asks("Hello?")

    def react(*emojis: str, before: tuple[str, ...] = ()) -> None:
        user = {"id": PERSON, "is_bot": False, "first_name": "Ann"}
        stage.telegram.push_update(
            message_reaction={
                "chat": {"id": PERSON, "type": "private"},
                "message_id": shown.id,
                "user": user,
                "date": 1,
                "old_reaction": [{"type": "emoji", "emoji": each} for each in before],
                "new_reaction": [{"type": "emoji", "emoji": each} for each in emojis],
            }
        )

    react("🎉")
    react("👍", "🎉", before=("🎉",))
    stage.first.default = answer("later")
    await stage.asks("Another?")
    stage.says("/compare stats")
    await stage.seen(lambda m: "a/m" in m.text and "👍 1, 👎 0" in m.text)
