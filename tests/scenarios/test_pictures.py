"""Pictures: by `/image`, and by the model in its answer."""

from tests.support.bot_harness import ADMIN, RETRY, BotHarness
from tests.support.fake_llm.server import PNG, answer, status, tool_call

AS_FILE = "As a file"
COMMAND = [{"type": "bot_command", "offset": 0, "length": 6}]
BOTH = '{"a": ["draw"], "b": ["draw"]}'


async def test_image_is_drawn_by_the_next_provider_and_sent_as_a_file_on_request(empty_stage: BotHarness) -> None:
    await empty_stage.start(IMAGE_PROVIDERS=BOTH)
    empty_stage.first.capability_behaviour = status(503)
    empty_stage.says("/image a fox in the snow")
    photo = await empty_stage.seen(lambda message: AS_FILE in message.labels)
    assert (photo.document, photo.text) == (PNG, "")
    assert RETRY in photo.labels
    assert not empty_stage.first.requests
    empty_stage.presses(photo, AS_FILE)
    file = await empty_stage.seen(lambda message: message.document is not None and message.id != photo.id)
    assert file.document == PNG
    sends = [call.method.lower() for call in empty_stage.telegram.calls]
    assert [method for method in sends if method in {"sendphoto", "senddocument"}] == ["sendphoto", "senddocument"]
    # The conversation knows of it.
    await empty_stage.asks("What did you draw?")
    assert "a fox in the snow" in str(empty_stage.first.requests[-1].json["messages"])


async def test_the_model_draws_under_its_answer(empty_stage: BotHarness) -> None:
    await empty_stage.start(IMAGE_PROVIDERS='{"b": ["draw"]}')
    empty_stage.first.script(tool_call("draw_picture", {"description": "a red fox"}), answer("Here it is."))
    answered = await empty_stage.asks("Draw me a fox")
    assert answered.text == "Here it is."
    photo = await empty_stage.seen(lambda message: message.document == PNG)
    assert photo.id > answered.id
    (asked,) = [each.json for each in empty_stage.second.other_requests if each.path.endswith("/images/generations")]
    assert (asked["prompt"], asked["model"]) == ("a red fox", "draw")


async def test_no_description_leaves_before_its_chat_agrees(empty_stage: BotHarness) -> None:
    await empty_stage.start(
        AVAILABLE_PROVIDERS='{"a": ["m"]}', IMAGE_PROVIDERS='{"b": ["draw"]}', REMOTE_CONSENT="ask", B_REMOTE="true"
    )
    connections = empty_stage.second.connections
    empty_stage.says("/image a fox")
    question = await empty_stage.seen(lambda message: "Allow" in message.labels)
    assert empty_stage.second.connections == connections
    empty_stage.presses(question, "Allow")
    assert (await empty_stage.seen(lambda message: message.document is not None)).document == PNG


async def test_a_picture_is_not_changed_without_a_word(empty_stage: BotHarness) -> None:
    await empty_stage.start(IMAGE_PROVIDERS=BOTH)
    file_id = empty_stage.telegram.add_file(PNG, "photos/a.png")
    photo = {"photo": [{"file_id": file_id, "file_unique_id": "u", "width": 8, "height": 8}]}
    empty_stage.says("", extra={**photo, "caption": "/image make it blue", "caption_entities": COMMAND})
    assert (await empty_stage.reply()).text.startswith("Pictures cannot be edited here")
    assert not [each for each in empty_stage.first.other_requests if "/images/" in each.path]


async def test_what_is_not_set_up_is_said(stage: BotHarness) -> None:
    stage.says("/image a fox", chat_id=ADMIN, user_id=ADMIN)
    assert (await stage.reply(ADMIN)).text == "Drawing is not set up on this bot."
