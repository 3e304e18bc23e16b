"""Text files in the encodings that people's programs still write."""

import random

import pytest

from core.messages import TextFile
from services.chat.prompts import frame_file
from services.files.encodings import decode

RUSSIAN = "Привет, это письмо из бухгалтерии. Счёт за ноябрь оплачен, копия во вложении.\r\nИванов\r\n"
TABLE = "Фамилия;Имя;Сумма\nПетров;Пётр;1200\nСидорова;Анна;3400\n"
FRENCH = "Les élèves ont été reçus à l'école où ils étudient le français.\n"
POLISH = "Zażółć gęślą jaźń, proszę o przesłanie faktury za usługę.\n"
LOG = "2026-11-29 08:00:00 INFO The server listens on port 8080.\n"
JAPANESE = "こんにちは。来週の会議は火曜日の午前十時に始まります。\n"


@pytest.mark.parametrize(
    ("text", "encoding", "guessed"),
    [
        (RUSSIAN, "utf-8", ""),
        (RUSSIAN, "utf-8-sig", ""),
        (RUSSIAN, "utf-16", ""),
        (RUSSIAN, "utf-32", ""),
        ("", "utf-8", ""),
        # Without a mark.
        (RUSSIAN, "utf-16-le", "UTF-16"),
        (RUSSIAN, "utf-16-be", "UTF-16"),
        (RUSSIAN, "cp1251", "cp1251"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (RUSSIAN, "cp866", "cp866"),
        (RUSSIAN, "iso8859-5", "iso8859-5"),
        (RUSSIAN, "mac-cyrillic", "mac-cyrillic"),
        ("Отчёт за год\n", "koi8-r", "koi8-r"),
        ("Отчёт за год\n", "cp1251", "cp1251"),
        (TABLE, "cp1251", "cp1251"),
        (TABLE, "koi8-r", "koi8-r"),
        (FRENCH, "latin-1", "cp1252"),
        (POLISH, "cp1250", "cp1250"),
        (JAPANESE, "shift_jis", "shift-jis"),
        (JAPANESE, "euc-jp", "euc-jp"),
        (JAPANESE, "iso2022-jp", "ISO-2022-JP"),
        ("你好，明天上午九点开会，请准时参加。\n", "gb18030", "gb18030"),
        # Longer than the examined part, which ends in the middle of a character.
        (JAPANESE.strip() * 2000, "shift_jis", "shift-jis"),
        (RUSSIAN * 2000, "koi8-r", "koi8-r"),
        # Its first letter outside of ASCII comes late, or is the only one.
        ("id;name;price\n" * 10_000 + TABLE, "cp1251", "cp1251"),
        (LOG * 2000 + "A café has been added.\n" + LOG, "latin-1", "cp1250"),
        ("café", "latin-1", "cp1250"),
    ],
)  # fmt: skip
def test_a_text_is_read_whatever_its_encoding(text: str, encoding: str, guessed: str) -> None:
    found = decode(text.encode(encoding))
    assert found is not None
    assert (found.text, found.guessed_encoding) == (text, guessed)


def test_damaged_utf8_keeps_its_text_and_shows_the_gaps() -> None:
    data = (RUSSIAN * 3).encode()
    found = decode(data[:200] + b"\xff" + data[200:-1] + b"\xd0")
    assert found is not None
    assert not found.guessed_encoding
    assert 1 <= found.text.count("\ufffd") <= 3
    assert found.text.startswith(RUSSIAN[:90])


def test_utf8_that_was_cut_within_its_last_character_is_read() -> None:
    found = decode("Да, конечно".encode()[:-1])
    assert found is not None
    assert (found.text, found.guessed_encoding) == ("Да, конечн\ufffd", "")


def test_a_damaged_byte_far_behind_does_not_refuse_a_text() -> None:
    found = decode((RUSSIAN * 2000).encode("cp1251") + b"\x98\n")
    assert found is not None
    assert found.text == RUSSIAN * 2000 + "\ufffd\n"


def test_bytes_that_are_no_text_are_refused() -> None:
    dice = random.Random(1)
    samples = [dice.randbytes(size) for size in (60, 500, 5000, 200_000)]
    samples += [each.replace(b"\0", b"a") for each in samples]
    assert [decode(each) for each in samples] == [None] * len(samples)


def test_the_model_is_told_of_a_guess() -> None:
    told = frame_file(TextFile("a.txt", "Отчёт", guessed_encoding="koi8-r"))
    assert told.startswith("[The file a.txt, decoded as koi8-r by guess; say so if it looks garbled:]\n")
