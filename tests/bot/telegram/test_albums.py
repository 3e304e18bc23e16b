"""When an album is whole, and what belongs to it."""

import asyncio

from bot.telegram.albums import LAST_PART_S, MOST_PARTS, Album, Albums
from tests.support.clock import ManualClock, settle
from tests.support.telegram_messages import GROUP, message


def taken(albums: Albums, number: int, album: str | None = "x", **fields: object) -> Album:
    found = albums.join(message(None, message_id=number, media_group_id=album, **fields))
    assert found is not None
    return found


async def numbers(album: Album) -> list[int]:
    return [each.message_id for each in await album.whole()]


async def test_a_message_that_stands_by_itself_is_no_album(clock: ManualClock) -> None:
    assert Albums(clock).join(message("hello")) is None


async def test_an_album_is_whole_a_second_after_its_last_part(clock: ManualClock) -> None:
    albums = Albums(clock)
    whole = asyncio.create_task(numbers(taken(albums, 1)))
    await clock.advance(0.9 * LAST_PART_S)
    taken(albums, 2)
    await clock.advance(0.9 * LAST_PART_S)
    assert not whole.done()
    await clock.advance(0.2 * LAST_PART_S)
    assert whole.result() == [1, 2]


async def test_a_part_that_comes_later_is_a_message_of_its_own(clock: ManualClock) -> None:
    albums = Albums(clock)
    first = taken(albums, 1)
    await clock.advance(LAST_PART_S)
    late = taken(albums, 2)
    assert late is not first
    assert await numbers(first) == [1]


async def test_no_more_than_ten_parts_and_the_tenth_is_the_last(clock: ManualClock) -> None:
    """Nothing is waited for then."""
    albums = Albums(clock)
    parts = [taken(albums, number) for number in range(MOST_PARTS + 1)]
    assert parts[0] is parts[MOST_PARTS - 1] is not parts[MOST_PARTS]
    whole = asyncio.create_task(numbers(parts[0]))
    await settle()
    assert whole.result() == list(range(MOST_PARTS))


async def test_albums_of_two_chats_are_apart_whatever_their_name(clock: ManualClock) -> None:
    albums = Albums(clock)
    assert taken(albums, 1) is not taken(albums, 2, chat=GROUP)


async def test_albums_that_are_whole_leave_nothing_behind(clock: ManualClock) -> None:
    albums = Albums(clock)
    for number in range(50):
        taken(albums, number, str(number))
    await clock.advance(LAST_PART_S)
    taken(albums, 50)
    assert len(albums._open) == 1
