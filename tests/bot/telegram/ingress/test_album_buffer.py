"""Which parts of a group's album are stored, and when."""

from bot.telegram.ingress.album_buffer import ALBUMS_KEPT, FORGOTTEN_AFTER_S, AlbumBuffer
from services.inbox.album_parts import MAX_PARTS
from tests.support.clock import ManualClock
from tests.support.fake_telegram.messages import GROUP, message


def joined(
    albums: AlbumBuffer, number: int, *, is_wanted: bool = False, album: str | None = "x", **fields: object
) -> list[int]:
    """The parts that are to be stored now, by their messages."""
    part = message(None, message_id=number, media_group_id=album, **fields)
    return [each.message_id for each in albums.join(part, f"update {number}", is_wanted=is_wanted)]


def test_a_message_that_stands_by_itself_is_no_album(clock: ManualClock) -> None:
    assert joined(AlbumBuffer(clock), 1, album=None, is_wanted=True) == []


def test_nothing_is_stored_before_a_part_is_for_the_bot(clock: ManualClock) -> None:
    """Then those before it are, and those after it as they come."""
    albums = AlbumBuffer(clock)
    assert [joined(albums, 1), joined(albums, 2)] == [[], []]
    assert joined(albums, 3, is_wanted=True) == [1, 2, 3]
    assert 4 in joined(albums, 4)


def test_what_is_stored_is_the_update_that_brought_it(clock: ManualClock) -> None:
    [part] = AlbumBuffer(clock).join(message(None, message_id=1, media_group_id="x"), "the update", is_wanted=True)
    assert (part.chat_id, part.album, part.message_id, part.update) == (7, "x", 1, "the update")


def test_albums_of_two_chats_are_apart_whatever_their_name(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    joined(albums, 1)
    assert joined(albums, 2, chat=GROUP, is_wanted=True) == [2]


def test_a_part_that_comes_twice_is_one(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    for _ in range(MAX_PARTS):
        joined(albums, 1)
    assert joined(albums, 2, is_wanted=True) == [1, 2]


def test_an_album_is_forgotten_half_a_minute_after_its_last_part(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    joined(albums, 1)
    clock.shift(FORGOTTEN_AFTER_S - 1)
    joined(albums, 2)
    clock.shift(FORGOTTEN_AFTER_S - 1)
    assert joined(albums, 3, is_wanted=True) == [1, 2, 3]
    clock.shift(FORGOTTEN_AFTER_S)
    assert joined(albums, 4, is_wanted=True) == [4]


def test_only_so_many_albums_are_remembered(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    for number in range(2 * ALBUMS_KEPT):
        joined(albums, number, album=str(number))
    assert len(albums._albums) <= ALBUMS_KEPT


def test_who_sent_an_album_is_told_once_that_it_is_too_much(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    one, two = (message(None, message_id=number, media_group_id="x") for number in (1, 2))
    assert [albums.refused(one), albums.refused(two)] == [True, False]
    alone = message("hello")
    assert [albums.refused(alone), albums.refused(alone)] == [True, True]
