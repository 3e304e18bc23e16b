"""Parses times of day at the beginning of a text: `9:30`, `at nine`, `9 pm`, `в 9 вечера`, `noon`.

It also has the numbers in words, and the names of months and weekdays, which tell where a time ends.
"""

import re
from collections.abc import Mapping
from datetime import time
from typing import TypeVar

from core.errors import ScheduleRefused

_UNITS: Mapping[str, int] = {
    "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9,
    "один": 1, "одну": 1, "одна": 1, "два": 2, "две": 2, "три": 3, "четыре": 4, "пять": 5, "шесть": 6, "семь": 7,
    "восемь": 8, "девять": 9,
}  # fmt: skip
_TEENS: Mapping[str, int] = {
    "ten": 10, "eleven": 11, "twelve": 12, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19,
    "десять": 10, "одиннадцать": 11, "двенадцать": 12, "тринадцать": 13, "четырнадцать": 14, "пятнадцать": 15,
    "шестнадцать": 16, "семнадцать": 17, "восемнадцать": 18, "девятнадцать": 19,
}  # fmt: skip
_TENS: Mapping[str, int] = {
    "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "двадцать": 20, "тридцать": 30, "сорок": 40, "пятьдесят": 50, "шестьдесят": 60, "семьдесят": 70,
    "восемьдесят": 80, "девяносто": 90,
}  # fmt: skip
_VALUES: Mapping[str, int] = {**_UNITS, **_TEENS, **_TENS}
_UNIT = "|".join(_UNITS)
NUMBER = rf"(?:(?:{'|'.join(_TENS)})(?:[\s-]+(?:{_UNIT}))?|{'|'.join(_TEENS)}|{_UNIT})"
"""Pattern of a number; the caller matches the end of its last word."""


def to_number(text: str) -> int:
    """Returns the value of a text that `NUMBER` matches."""
    return sum(_VALUES[word] for word in re.split(r"[\s-]+", text.lower()))


T = TypeVar("T")

HALF_DAY_H = 12
AM, PM, MORNING, AFTERNOON, EVENING, NIGHT = "am", "pm", "morning", "afternoon", "evening", "night"
_PARTS_BEFORE: Mapping[str, str] = {
    r"(?:in the )?morning|утром": MORNING,
    r"(?:in the )?afternoon|дн[её]м": AFTERNOON,
    r"(?:in the )?evening|вечером": EVENING,
    r"(?:at )?night|ночью": NIGHT,
}
_PARTS_AFTER: Mapping[str, str] = {
    r"am|a\.m\.?": AM,
    r"pm|p\.m\.?": PM,
    r"in the morning|утра": MORNING,
    r"in the afternoon|дня": AFTERNOON,
    r"in the evening|вечера": EVENING,
    r"at night|ночи": NIGHT,
}
_HOURS = (
    "one|час", "two|два", "three|три", "four|четыре", "five|пять", "six|шесть", "seven|семь", "eight|восемь",
    "nine|девять", "ten|десять", "eleven|одиннадцать", "twelve|двенадцать",
)  # fmt: skip
SPELLED_HOUR = rf"(?:{'|'.join(_HOURS)})"
_SPELLED_HOURS = tuple(rf"(?:at|в)\s+(?:{words})" for words in _HOURS)
_MINUTE_WORDS: Mapping[str, int] = {
    r"fifteen|пятнадцать": 15,
    r"thirty|тридцать": 30,
    r"forty[- ]five|сорок пять": 45,
}
_NAMED_HOURS: Mapping[str, int] = {
    r"(?:(?:at|в)\s+)?(?:noon|midday|полдень)": 12,
    r"(?:(?:at|в)\s+)?(?:midnight|полночь)": 0,
}
_AT = r"(?:(?:(?:ровно\s+)?(?:at|в|к)\s+)|@\s*)?"
MONTHS = (
    r"(?:january|jan|январ[ья])", r"(?:february|feb|феврал[ья])", r"(?:march|mar|марта?)", r"(?:april|apr|апрел[ья])",
    r"(?:may|ма[йя])", r"(?:june|jun|июн[ья])", r"(?:july|jul|июл[ья])", r"(?:august|aug|августа?)",
    r"(?:september|sept?|сентябр[ья])", r"(?:october|oct|октябр[ья])", r"(?:november|nov|ноябр[ья])",
    r"(?:december|dec|декабр[ья])",
)  # fmt: skip
WEEKDAYS = (
    r"(?:mondays?|mon|понедельник\w*|пн)",
    r"(?:tuesdays?|tues?|вторник\w*|вт)",
    r"(?:wednesdays?|wed|сред[ауые]\w*|ср)",
    r"(?:thursdays?|thurs?|четверг\w*|чт)",
    r"(?:fridays?|fri|пятниц\w*|пт)",
    r"(?:saturdays?|sat|суббот\w*|сб)",
    r"(?:sundays?|sun|воскресень\w*|вс)",
)
_ZONES = (
    "utc|gmt|msk|мск|cet|cest|eet|eest|wet|west|bst|est|edt|cst|cdt|mst|mdt|pst|pdt|akst|akdt|hst|ist|jst|kst|sgt|hkt|"
    "aest|aedt|awst|nzst|nzdt"
)
_ZONE = (
    # Abbreviated, `Moscow time`, `Europe/Moscow`, `по московскому времени`; none is read by its name.
    rf"\(?(?:по\s+)?(?:{_ZONES})\b|\(?(?-i:[ECMP]T|Z)\b|\(?[a-z]+(?:[ -][a-z]+)?\s+time\b|\(?[a-z_]+/[a-z_]+\b"
    r"|по\s+(?:моск|гринв)|(?:по\s+)?[а-яё-]+\s+времени\b"
)
ZONE = re.compile(_ZONE, re.IGNORECASE)
_CONTINUATION = re.compile(
    # A range, an offset, a list, or minutes before or after the hour.
    rf"[-+–—.:：]\s*(?:\d|{NUMBER}\b)|\d{{1,2}}:\d\d\b|(?:noon|midnight|полдень|полночь|полудня|полуночи)\b|(?:\d{{1,2}}|{NUMBER})\s*(?:минут|мин\b|min)|(?:and|or|to|past|after|till|until|и|или|до)\s+(?:(?:at|в)\s+)?(?:\d|{NUMBER}\b)"
    rf"|{_ZONE}",
    re.IGNORECASE,
)
"""Text after a match that shows that only a part of the time was parsed."""
_MORE_MINUTES = re.compile(rf"{NUMBER}\b", re.IGNORECASE)
"""Text after an hour in words that may be its minutes."""
_AFTER = (
    r"(?P<clock>\s*(?:o['’]?\s?clock|час(?:а|ов)?|h|ч\.?)"
    r"(?:(?<=[hч])(?P<minutes>\d{2})(?:m|м|мин\.?)?|\s*(?P<counted>\d{1,2})\s*(?:минут[уы]?|мин\.?|м|m))?)?"
    rf"(?:\s*(?P<part>{'|'.join(_PARTS_AFTER)}))?"
)
"""Words after an hour."""


class Words:
    """A text consumed from its beginning, case-insensitively."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def take(self, pattern: str) -> re.Match[str] | None:
        """Consumes a match that ends at a word boundary, with the white space and punctuation after it."""
        found = re.match(rf"(?:{pattern})(?!\w|[:：]\d|['’]\w)", self.rest, re.IGNORECASE)
        if found is not None:
            self.rest = self.rest[found.end() :].lstrip(" \t\r\n,")
        return found

    def sees(self, pattern: str) -> bool:
        """Returns whether the rest begins with a match that ends at the end of a word."""
        return re.match(rf"(?:{pattern})(?!\w)", self.rest, re.IGNORECASE) is not None

    def take_key(self, table: Mapping[str, T]) -> T | None:
        """Removes the first pattern of a table that matches. Returns its value."""
        return next((value for pattern, value in table.items() if self.take(pattern)), None)

    def take_index(self, patterns: tuple[str, ...]) -> int | None:
        """Removes the first of several patterns that matches. Returns its number."""
        return next((number for number, pattern in enumerate(patterns) if self.take(pattern)), None)


def require_clock(words: Words, part: str | None = None) -> time:
    """Reads a time of day.

    Args:
        part: part of the day, if the preceding words named one.

    Raises:
        ScheduleRefused: there is none.
    """
    part = words.take_key(_PARTS_BEFORE) or part
    found = take_clock(words, part=part)
    if found is None:
        raise ScheduleRefused("schedule-unreadable")
    return found


def take_clock(words: Words, *, part: str | None = None, needs_mark: bool = False) -> time | None:
    """Reads a time of day. Returns None if there is none.

    Args:
        needs_mark: whether a bare number is no time, since it may belong to the text.
    """
    if (hour := words.take_key(_NAMED_HOURS)) is not None:
        if _CONTINUATION.match(words.rest):
            raise ScheduleRefused("schedule-unreadable")
        return time(hour)
    before = words.rest
    fraction = _take_fraction(words)
    if fraction is not None:
        (hour, minute), is_marked, digits = fraction, False, None
        after = words.take(_AFTER.lstrip())
    elif (digits := words.take(rf"{_AT}(\d{{1,2}})(?:[:：.](\d{{2}}))?{_AFTER}")) is not None:
        own, minutes = digits.group(2), digits.group("minutes") or digits.group("counted")
        if own and minutes:
            raise ScheduleRefused("schedule-unreadable")
        minutes = own or minutes
        hour, minute, is_marked = int(digits.group(1)), int(minutes or 0), minutes is not None
        after = digits
    elif (spelled := words.take_index(_SPELLED_HOURS)) is not None:
        hour, minute, is_marked = spelled + 1, words.take_key(_MINUTE_WORDS) or 0, False
        after = words.take(_AFTER.lstrip())
    else:
        return None
    own_part = _find_part(after.group("part") or "") if after is not None else None
    is_marked = is_marked or own_part is not None or (after is not None and after.group("clock") is not None)
    if needs_mark and not is_marked:
        words.rest = before
        return None
    is_date = not before.lower().startswith(("at ", "в ")) and re.match(
        rf"(?:{'|'.join(MONTHS)})\b", words.rest, re.IGNORECASE
    )
    is_half_read = digits is None and fraction is None and _MORE_MINUTES.match(words.rest)
    if is_date or is_half_read or _CONTINUATION.match(words.rest):
        raise ScheduleRefused("schedule-unreadable")
    return _to_time(hour, minute, own_part or part)


_ORDINALS = (
    "первого", "второго", "третьего", "четв[её]ртого", "пятого", "шестого", "седьмого", "восьмого", "девятого",
    "десятого", "одиннадцатого", "двенадцатого",
)  # fmt: skip


def _take_fraction(words: Words) -> tuple[int, int] | None:
    """Reads `half past nine`, `quarter to nine`, `в половине десятого`, `без четверти девять`.

    Returns:
        The hour and the minute; None where there is no such time.
    """
    for number, (cardinal, ordinal) in enumerate(zip(_HOURS, _ORDINALS, strict=True), 1):
        before = number - 1 or 12
        hour = f"(?:{cardinal}|{number})"
        for pattern, found in (
            (rf"{_AT}half\s+past\s+{hour}", (number, 30)),
            (rf"{_AT}(?:a\s+)?quarter\s+past\s+{hour}", (number, 15)),
            (rf"{_AT}(?:(?:a\s+)?quarter\s+to|без\s+четверти)\s+{hour}", (before, 45)),
            (rf"{_AT}(?:половине\s+|пол-?){ordinal}", (before, 30)),
        ):
            if words.take(pattern):
                return found
    return None


def _find_part(text: str) -> str | None:
    return next((part for words, part in _PARTS_AFTER.items() if re.fullmatch(words, text, re.IGNORECASE)), None)


def _to_time(hour: int, minute: int, part: str | None) -> time:
    """Returns a time of day, of which a half may be named: 9 in the evening is 21:00."""
    if part is None:
        return time(hour, minute)
    if not 1 <= hour <= HALF_DAY_H:
        # As in `21:00 вечера`.
        if part in {AM, PM, MORNING} or not hour:
            raise ScheduleRefused("schedule-unreadable")
        return time(hour, minute)
    hour %= HALF_DAY_H
    # 9 дня is no time, and 12 or 1 in the evening is after midnight or a slip.
    if (part == AFTERNOON and hour in range(7, 10)) or (part == EVENING and hour in range(4)):
        raise ScheduleRefused("schedule-unreadable")
    # 2 at night is before dawn, 11 at night before midnight; 11 дня is before noon.
    is_later = (
        part in {PM, EVENING}
        or (part == AFTERNOON and hour in range(10))
        or (part == NIGHT and hour in range(6, HALF_DAY_H))
    )
    return time(hour + HALF_DAY_H * is_later, minute)
