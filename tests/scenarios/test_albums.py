"""Albums: several Telegram messages that form one message."""

import asyncio
from itertools import count

import pytest

from tests.support.bot_harness import FIRST, GROUP, PERSON, BotHarness, images, told
from tests.support.fake_llm.server import answer, gate

ONE, TWO, THREE = (b"\xff\xd8\xff\xe0 picture " + number for number in (b"one", b"two", b"three"))
VIDEO = {"video": {"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1, "duration": 1}}
_numbers = count(1)


def sends(stage: BotHarness, *parts: tuple[bytes, str], chat_id: int = PERSON, album: str | None = None) -> list[int]:
    """Send an album of pictures with captions. Returns the ids of its messages."""
    extra = {"media_group_id": album or f"album-{next(_numbers)}"}
    return [stage.says(text, chat_id, user_id=PERSON, photo=photo, extra=extra).id for photo, text in parts]


@pytest.fixture
async def seeing(empty_stage: BotHarness) -> BotHarness:
    """A bot whose first model has vision."""
    await empty_stage.start(A_FAMILIES='{"m": "gpt-4o"}')
    return empty_stage


@pytest.mark.parametrize("captions", [("Compare them.", "", ""), ("", "Compare them.", ""), ("", "", "")])
async def test_album_gets_one_answer(seeing: BotHarness, captions: tuple[str, ...]) -> None:
    """All pictures and the caption, on whichever part it is."""
    sends(seeing, *zip((ONE, TWO, THREE), captions, strict=True))
    assert (await seeing.answer()).text == FIRST
    await seeing.quiet()
    assert len(seeing.first.requests) == len(seeing.chat().answers()) == 1
    assert images(seeing.first) == [ONE, TWO, THREE]
    assert told(seeing.first.requests[0])[0][1].replace("<image_url>", "") == "".join(captions)


async def test_album_keeps_a_caption_per_picture(seeing: BotHarness) -> None:
    sends(seeing, (ONE, "Before."), (TWO, "After."))
    await seeing.answer()
    assert told(seeing.first.requests[0])[0][1].startswith("Before.\n\nAfter.")


async def test_album_keeps_its_place_in_the_queue(seeing: BotHarness) -> None:
    """A later message is answered after it, although it was complete earlier."""
    seeing.says("One.")
    sends(seeing, (ONE, "Two."), (TWO, ""))
    seeing.says("Three.")
    await seeing.until(lambda: len(seeing.chat().answers()) == 3)
    heard = [told(request)[-1][1] for request in seeing.first.requests]
    assert [text.partition("<")[0] for text in heard] == ["One.", "Two.", "Three."]


async def test_album_split_over_two_polls_gets_one_answer(seeing: BotHarness) -> None:
    """The rest arrives with the next poll."""
    sends(seeing, (ONE, "Compare them."), album="x")
    await seeing.until(lambda: not seeing.telegram.pending)
    await seeing.quiet(0.3)
    sends(seeing, (TWO, ""), album="x")
    await seeing.answer()
    assert images(seeing.first) == [ONE, TWO]
    assert len(seeing.chat().answers()) == 1


async def test_two_albums_get_two_answers(seeing: BotHarness) -> None:
    sends(seeing, (ONE, "The first."), album="x")
    sends(seeing, (TWO, "The second."), (THREE, ""), album="y")
    await seeing.until(lambda: len(seeing.chat().answers()) == 2)
    assert images(seeing.first, 1) == [TWO, THREE]


@pytest.mark.parametrize("captions", [("@understudy_bot compare them", ""), ("", "/ask compare them")])
async def test_group_album_is_answered_if_one_part_addresses_the_bot(
    seeing: BotHarness, captions: tuple[str, str]
) -> None:
    """The answer replies to that part and includes the others."""
    ids = sends(seeing, *zip((ONE, TWO), captions, strict=True), chat_id=GROUP)
    message = await seeing.answer(GROUP)
    assert message.reply_to == next(id_ for id_, caption in zip(ids, captions, strict=True) if caption)
    assert images(seeing.first) == [ONE, TWO]
    assert told(seeing.first.requests[0])[0][1].startswith("Ann: compare them")
    assert len(seeing.chat(GROUP).answers()) == 1


async def test_group_album_without_mention_is_ignored(seeing: BotHarness) -> None:
    sends(seeing, (ONE, "Look, Bob"), (TWO, ""), chat_id=GROUP)
    assert (await seeing.asks("/ask Are you there?", GROUP, user_id=PERSON)).text == FIRST
    assert len(seeing.chat(GROUP).answers()) == 1
    assert told(seeing.first.requests[0]) == [("user", "Ann: Are you there?")]


async def test_album_with_an_unsupported_part_is_declined_once(seeing: BotHarness) -> None:
    """An answer to the rest would suggest that the bot saw all of it."""
    sends(seeing, (ONE, "What happens here?"), album="x")
    seeing.says("", extra={"media_group_id": "x", **VIDEO})
    assert (await seeing.reply()).text.startswith("This kind of message is not supported yet.")
    await seeing.quiet()
    assert len(seeing.chat().answers()) == 1
    assert not seeing.first.requests


async def test_album_of_text_files_gets_one_answer(stage: BotHarness) -> None:
    for name, text in (("a.txt", b"Ay."), ("b.txt", b"Bee.")):
        stage.says("Merge them." if name == "a.txt" else "", document=text, file_name=name,
                   extra={"media_group_id": "x"})  # fmt: skip
    await stage.answer()
    assert told(stage.first.requests[0])[0][1] == (
        "Merge them.\n\n[The file a.txt:]\n Ay.\n[End of the file]\n\n[The file b.txt:]\n Bee.\n[End of the file]"
    )


async def test_album_over_the_size_limit_is_declined(stage: BotHarness) -> None:
    for name in ("a.txt", "b.txt"):
        stage.says("", document=b"x" * 150_000, file_name=name, extra={"media_group_id": "x"})
    assert (await stage.reply()).text == "This file is too large. Please send a smaller one."


async def test_album_with_a_failed_download_is_declined(seeing: BotHarness) -> None:
    seeing.telegram.fail("getFile", status=400, description="Bad Request: file is too big")
    sends(seeing, (ONE, "Compare them."), (TWO, ""))
    assert (await seeing.reply()).text.startswith("The file could not be downloaded")
    assert not seeing.first.requests


async def test_album_of_an_unlisted_user_is_declined_once(empty_stage: BotHarness) -> None:
    await empty_stage.start(ALLOWED_USER_IDS="8")
    sends(empty_stage, (ONE, "Compare them."), (TWO, ""), (THREE, ""))
    await empty_stage.reply()
    await empty_stage.quiet()
    assert len(empty_stage.chat().answers()) == 1


async def test_album_over_the_queue_limit_is_declined_once(empty_stage: BotHarness) -> None:
    await empty_stage.start(LIMIT_MESSAGES_PER_MINUTE="0")
    more = asyncio.Event()
    empty_stage.first.script(gate(more, then=answer("At last.")))
    for number in range(21):
        empty_stage.says(f"Number {number}.")
    sends(empty_stage, (ONE, "And this?"), (TWO, ""))
    assert (await empty_stage.reply()).text.startswith("Too many messages are waiting")
    await empty_stage.quiet()
    assert len(empty_stage.chat().answers()) == 1
    more.set()
