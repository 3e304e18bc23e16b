"""Albums: several messages for Telegram, one for whoever sent them and for the bot."""

import asyncio
from itertools import count

import pytest

from tests.support.bot_harness import FIRST, GROUP, PERSON, BotHarness, images, told
from tests.support.fake_llm.server import answer, gate

ONE, TWO, THREE = (b"\xff\xd8\xff\xe0 picture " + number for number in (b"one", b"two", b"three"))
VIDEO = {"video": {"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1, "duration": 1}}
_numbers = count(1)


def sends(stage: BotHarness, *parts: tuple[bytes, str], chat_id: int = PERSON, album: str | None = None) -> list[int]:
    """A person sends an album: pictures, each with its caption; the ids of its messages come back."""
    extra = {"media_group_id": album or f"album-{next(_numbers)}"}
    return [stage.says(text, chat_id, user_id=PERSON, photo=photo, extra=extra).id for photo, text in parts]


@pytest.fixture
async def seeing(empty_stage: BotHarness) -> BotHarness:
    """A stage whose first model sees pictures."""
    await empty_stage.start(A_FAMILIES='{"m": "gpt-4o"}')
    return empty_stage


@pytest.mark.parametrize("captions", [("Compare them.", "", ""), ("", "Compare them.", ""), ("", "", "")])
async def test_an_album_is_one_message(seeing: BotHarness, captions: tuple[str, ...]) -> None:
    """All its pictures and its caption, wherever that is; one answer."""
    sends(seeing, *zip((ONE, TWO, THREE), captions, strict=True))
    assert (await seeing.answer()).text == FIRST
    await seeing.quiet()
    assert len(seeing.first.requests) == len(seeing.chat().answers()) == 1
    assert images(seeing.first) == [ONE, TWO, THREE]
    assert told(seeing.first.requests[0])[0][1].replace("<image_url>", "") == "".join(captions)


async def test_each_picture_may_have_a_caption(seeing: BotHarness) -> None:
    sends(seeing, (ONE, "Before."), (TWO, "After."))
    await seeing.answer()
    assert told(seeing.first.requests[0])[0][1].startswith("Before.\n\nAfter.")


async def test_an_album_keeps_its_place(seeing: BotHarness) -> None:
    """What was sent after it is answered after it, though it was whole before."""
    seeing.says("One.")
    sends(seeing, (ONE, "Two."), (TWO, ""))
    seeing.says("Three.")
    await seeing.until(lambda: len(seeing.chat().answers()) == 3)
    heard = [told(request)[-1][1] for request in seeing.first.requests]
    assert [text.partition("<")[0] for text in heard] == ["One.", "Two.", "Three."]


async def test_an_album_in_two_batches(seeing: BotHarness) -> None:
    """Telegram hands over what it has; the rest comes with the next poll."""
    sends(seeing, (ONE, "Compare them."), album="x")
    await seeing.until(lambda: not seeing.telegram.pending)
    await seeing.quiet(0.3)
    sends(seeing, (TWO, ""), album="x")
    await seeing.answer()
    assert images(seeing.first) == [ONE, TWO]
    assert len(seeing.chat().answers()) == 1


async def test_two_albums_are_two_messages(seeing: BotHarness) -> None:
    sends(seeing, (ONE, "The first."), album="x")
    sends(seeing, (TWO, "The second."), (THREE, ""), album="y")
    await seeing.until(lambda: len(seeing.chat().answers()) == 2)
    assert images(seeing.first, 1) == [TWO, THREE]


@pytest.mark.parametrize("captions", [("@understudy_bot compare them", ""), ("", "/ask compare them")])
async def test_in_a_group_an_album_is_for_the_bot_if_one_of_its_parts_is(
    seeing: BotHarness, captions: tuple[str, str]
) -> None:
    """The answer hangs on that part, and sees the others too."""
    ids = sends(seeing, *zip((ONE, TWO), captions, strict=True), chat_id=GROUP)
    message = await seeing.answer(GROUP)
    assert message.reply_to == next(id_ for id_, caption in zip(ids, captions, strict=True) if caption)
    assert images(seeing.first) == [ONE, TWO]
    assert told(seeing.first.requests[0])[0][1].startswith("Ann: compare them")
    assert len(seeing.chat(GROUP).answers()) == 1


async def test_in_a_group_an_album_for_others_is_none_of_the_bots_business(seeing: BotHarness) -> None:
    sends(seeing, (ONE, "Look, Bob"), (TWO, ""), chat_id=GROUP)
    assert (await seeing.asks("/ask Are you there?", GROUP, user_id=PERSON)).text == FIRST
    assert len(seeing.chat(GROUP).answers()) == 1
    assert told(seeing.first.requests[0]) == [("user", "Ann: Are you there?")]


async def test_an_album_with_something_unreadable_is_declined_once(seeing: BotHarness) -> None:
    """An answer to the rest would look as if the bot had seen it all."""
    sends(seeing, (ONE, "What happens here?"), album="x")
    seeing.says("", extra={"media_group_id": "x", **VIDEO})
    assert (await seeing.reply()).text.startswith("This kind of message is not supported yet.")
    await seeing.quiet()
    assert len(seeing.chat().answers()) == 1
    assert not seeing.first.requests


async def test_text_files_come_together_too(stage: BotHarness) -> None:
    for name, text in (("a.txt", b"Ay."), ("b.txt", b"Bee.")):
        stage.says("Merge them." if name == "a.txt" else "", document=text, file_name=name,
                   extra={"media_group_id": "x"})  # fmt: skip
    await stage.answer()
    assert told(stage.first.requests[0])[0][1] == (
        "Merge them.\n\n[The file a.txt:]\nAy.\n[End of the file]\n\n[The file b.txt:]\nBee.\n[End of the file]"
    )


async def test_files_that_are_too_large_together(stage: BotHarness) -> None:
    for name in ("a.txt", "b.txt"):
        stage.says("", document=b"x" * 150_000, file_name=name, extra={"media_group_id": "x"})
    assert (await stage.reply()).text == "This file is too large. Please send a smaller one."


async def test_one_picture_that_telegram_does_not_give(seeing: BotHarness) -> None:
    seeing.telegram.fail("getFile", status=400, description="Bad Request: file is too big")
    sends(seeing, (ONE, "Compare them."), (TWO, ""))
    assert (await seeing.reply()).text.startswith("The file could not be downloaded")
    assert not seeing.first.requests


async def test_a_stranger_is_turned_away_once(empty_stage: BotHarness) -> None:
    await empty_stage.start(ALLOWED_USER_IDS="8")
    sends(empty_stage, (ONE, "Compare them."), (TWO, ""), (THREE, ""))
    await empty_stage.reply()
    await empty_stage.quiet()
    assert len(empty_stage.chat().answers()) == 1


async def test_an_album_too_many_is_told_so_once(seeing: BotHarness) -> None:
    more = asyncio.Event()
    seeing.first.script(gate(more, then=answer("At last.")))
    for number in range(21):
        seeing.says(f"Number {number}.")
    sends(seeing, (ONE, "And this?"), (TWO, ""))
    assert (await seeing.reply()).text.startswith("Too many messages are waiting")
    await seeing.quiet()
    assert len(seeing.chat().answers()) == 1
    more.set()
