"""AlbumBuffer: which parts of a group's album are stored, and when."""

from bot.telegram.ingress.album_buffer import ALBUM_LIFETIME_S, MAX_ALBUMS, AlbumBuffer
from services.inbox.album_parts import MAX_PARTS
from tests.support.clock import ManualClock
from tests.support.fake_telegram.messages import GROUP, message


def joined(
    albums: AlbumBuffer, number: int, *, is_wanted: bool = False, album: str | None = "x", **fields: object
) -> list[int]:
    """Adds a part and returns the message ids of the parts to store now."""
    part = message(None, message_id=number, media_group_id=album, **fields)
    return [each.message_id for each in albums.join(part, f"update {number}", is_wanted=is_wanted)]


def test_join_returns_nothing_for_a_message_without_an_album(clock: ManualClock) -> None:
    assert joined(AlbumBuffer(clock), 1, album=None, is_wanted=True) == []


def test_join_returns_buffered_parts_once_one_is_wanted(clock: ManualClock) -> None:
    """The parts before it are returned with it, those after it as they arrive."""
    albums = AlbumBuffer(clock)
    assert [joined(albums, 1), joined(albums, 2)] == [[], []]
    assert joined(albums, 3, is_wanted=True) == [1, 2, 3]
    assert 4 in joined(albums, 4)


def test_join_returns_the_update_that_brought_the_part(clock: ManualClock) -> None:
    [part] = AlbumBuffer(clock).join(message(None, message_id=1, media_group_id="x"), "the update", is_wanted=True)
    assert (part.chat_id, part.album, part.message_id, part.update) == (7, "x", 1, "the update")


def test_albums_with_the_same_id_in_two_chats_are_separate(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    joined(albums, 1)
    assert joined(albums, 2, chat=GROUP, is_wanted=True) == [2]


def test_join_is_idempotent_per_message(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    for _ in range(MAX_PARTS):
        joined(albums, 1)
    assert joined(albums, 2, is_wanted=True) == [1, 2]


def test_an_album_expires_after_its_last_part(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    joined(albums, 1)
    clock.shift(ALBUM_LIFETIME_S - 1)
    joined(albums, 2)
    clock.shift(ALBUM_LIFETIME_S - 1)
    assert joined(albums, 3, is_wanted=True) == [1, 2, 3]
    clock.shift(ALBUM_LIFETIME_S)
    assert joined(albums, 4, is_wanted=True) == [4]


def test_the_number_of_albums_is_bounded(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    for number in range(2 * MAX_ALBUMS):
        joined(albums, number, album=str(number))
    assert len(albums._albums) <= MAX_ALBUMS


def test_reject_once_is_true_once_per_album(clock: ManualClock) -> None:
    albums = AlbumBuffer(clock)
    one, two = (message(None, message_id=number, media_group_id="x") for number in (1, 2))
    assert [albums.reject_once(one), albums.reject_once(two)] == [True, False]
    alone = message("hello")
    assert [albums.reject_once(alone), albums.reject_once(alone)] == [True, True]
