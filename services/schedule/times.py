"""Times of schedules: reads them from text in English and Russian, and computes when a recurring one is due next."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum

from core.errors import ScheduleRefused

MOST_HOURS = 24 * 7
"""Longest pause of a recurrence in hours."""


class Frequency(StrEnum):
    """Unit of a recurrence."""

    HOURS = "hours"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A rule for the next time.

    Args:
        hours: pause in hours, of `HOURS`.
        at: local time of day, of the others.
        days: weekdays of `WEEK` (Monday is 0), or the day of `MONTH`; a shorter month has its last day instead.
    """

    frequency: Frequency
    hours: int = 0
    at: time = time()
    days: tuple[int, ...] = ()

    def __str__(self) -> str:
        if self.frequency is Frequency.HOURS:
            return f"{self.frequency} {self.hours}"
        return f"{self.frequency} {self.at:%H:%M} {','.join(map(str, self.days))}".strip()

    @classmethod
    def parse(cls, stored: str) -> "Recurrence":
        """Returns the rule that was stored as `str(rule)`."""
        frequency, value, *days = stored.split(" ")
        if frequency == Frequency.HOURS:
            return cls(Frequency.HOURS, hours=int(value))
        return cls(
            Frequency(frequency),
            at=time.fromisoformat(value),
            days=tuple(map(int, days[0].split(","))) if days else (),
        )

    def next_after(self, instant: datetime, due: datetime, zone: tzinfo) -> datetime:
        """Returns the first time after an instant.

        Args:
            due: the time before it; pauses in hours count from there.
            zone: of the time of day. A time that a clock change skips is due as much later.
        """
        if self.frequency is Frequency.HOURS:
            pause = timedelta(hours=self.hours)
            return due + pause * max((instant - due) // pause + 1, 1)
        day = instant.astimezone(zone).date()
        while True:
            found = to_instant(day, self.at, zone)
            if found > instant and self._falls_on(day):
                return found
            day += timedelta(days=1)

    def _falls_on(self, day: date) -> bool:
        match self.frequency:
            case Frequency.WEEK:
                return day.weekday() in self.days
            case Frequency.MONTH:
                is_last = (day + timedelta(days=1)).month != day.month
                return day.day == self.days[0] or (is_last and day.day < self.days[0])
            case _:
                return True


@dataclass(frozen=True, slots=True)
class When:
    """The first time, and the rule for the next ones, if any."""

    first: datetime
    recurrence: Recurrence | None = None


def to_instant(day: date, at: time, zone: tzinfo) -> datetime:
    """Returns the instant of a local time; of a time that occurs twice, the first."""
    return datetime.combine(day, at, zone).astimezone(UTC)


def parse_when(text: str, now: datetime, zone: tzinfo) -> tuple[When, str]:
    """Reads the time at the beginning of a text. Returns it with the rest of the text.

    Raises:
        ScheduleRefused: the text begins with no time, or with one that is over.
    """
    words = _Words(text.strip())
    local = now.astimezone(zone)
    try:
        when = _read_pause(words, now) or _read_recurrence(words, now, zone) or _read_date(words, local, zone)
    except (ValueError, OverflowError):
        raise ScheduleRefused("schedule-unreadable") from None
    if when is None:
        raise ScheduleRefused("schedule-unreadable")
    return when, words.rest


_UNITS = {
    r"(?:minutes?|mins?|минут[уы]?|мин)": timedelta(minutes=1),
    r"(?:hours?|hrs?|h|час(?:а|ов)?|ч)": timedelta(hours=1),
    r"(?:days?|день|дня|дней)": timedelta(days=1),
    r"(?:weeks?|недел[юиь])": timedelta(weeks=1),
}
_WEEKDAYS = (
    r"(?:mondays?|mon|понедельник\w*|пн)",
    r"(?:tuesdays?|tues?|вторник\w*|вт)",
    r"(?:wednesdays?|wed|сред[ауые]\w*|ср)",
    r"(?:thursdays?|thurs?|четверг\w*|чт)",
    r"(?:fridays?|fri|пятниц\w*|пт)",
    r"(?:saturdays?|sat|суббот\w*|сб)",
    r"(?:sundays?|sun|воскресень\w*|вс)",
)
_RELATIVE_DAYS: Mapping[str, int] = {
    r"(?:today|tonight|сегодня)": 0,
    r"(?:tomorrow|завтра)": 1,
    r"(?:the day after tomorrow|послезавтра)": 2,
}
_CLOCK = r"(?:(?:at|в)\s+)?(\d{1,2})(?:[:.](\d{2}))?\s*(am|pm)?"
_CLOCK_ALONE = r"(?:(?:at|в)\s+)?(\d{1,2})[:.](\d{2})\s*(am|pm)?|(?:(?:at|в)\s+)?(\d{1,2})\s*(am|pm)"
_EVERY = r"(?:every|каждый|каждую|каждое|каждые)"


class _Words:
    """A text that is read from its beginning, ignoring case."""

    def __init__(self, text: str) -> None:
        self.rest = text

    def take(self, pattern: str) -> re.Match[str] | None:
        """Removes a match that ends at the end of a word, with the white space and punctuation after it."""
        found = re.match(rf"(?:{pattern})(?![\w:])", self.rest, re.IGNORECASE)
        if found is not None:
            self.rest = self.rest[found.end() :].lstrip(" \t\r\n,")
        return found

    def take_key(self, table: Mapping[str, timedelta]) -> timedelta | None:
        return next((value for pattern, value in table.items() if self.take(pattern)), None)


def _read_pause(words: _Words, now: datetime) -> When | None:
    if not words.take(r"in|через"):
        return None
    number = words.take(r"\d{1,6}|an?|один|одну")
    amount = int(number.group()) if number is not None and number.group().isdecimal() else 1
    unit = words.take_key(_UNITS)
    if unit is None:
        raise ScheduleRefused("schedule-unreadable")
    return When(now + amount * unit)


def _read_recurrence(words: _Words, now: datetime, zone: tzinfo) -> When | None:
    recurrence = _read_rule(words, now.astimezone(zone))
    return When(recurrence.next_after(now, now, zone), recurrence) if recurrence is not None else None


def _read_rule(words: _Words, local: datetime) -> Recurrence | None:
    if words.take(r"daily|ежедневно"):
        return Recurrence(Frequency.DAY, at=_require_clock(words))
    if not words.take(_EVERY):
        return None
    if hours := words.take(r"(?:(\d{1,3})\s*)?(?:hours?|час(?:а|ов)?)"):
        count = int(hours.group(1) or 1)
        if not 1 <= count <= MOST_HOURS:
            raise ScheduleRefused("schedule-unreadable")
        return Recurrence(Frequency.HOURS, hours=count)
    if words.take(r"days?|день"):
        return Recurrence(Frequency.DAY, at=_require_clock(words))
    if words.take(r"weekdays?|workdays?|будн\w+|рабоч\w+ день"):
        return Recurrence(Frequency.WEEK, at=_require_clock(words), days=(0, 1, 2, 3, 4))
    if words.take(r"weeks?|неделю"):
        words.take(r"on|по|в")
        days = _read_weekdays(words) or (local.weekday(),)
        return Recurrence(Frequency.WEEK, at=_require_clock(words), days=days)
    if words.take(r"months?|месяц"):
        return _read_month(words, local)
    if days := _read_weekdays(words):
        return Recurrence(Frequency.WEEK, at=_require_clock(words), days=days)
    raise ScheduleRefused("schedule-unreadable")


def _read_month(words: _Words, local: datetime) -> Recurrence:
    day = words.take(r"(?:on\s+)?(?:the\s+)?(\d{1,2})(?:st|nd|rd|th)?(?:\s*числа)?(?=\s+(?:at\s+|в\s+)?\d)")
    number = int(day.group(1)) if day is not None else local.day
    if not 1 <= number <= 31:  # noqa: PLR2004 - days of the longest month
        raise ScheduleRefused("schedule-unreadable")
    return Recurrence(Frequency.MONTH, at=_require_clock(words), days=(number,))


def _read_weekdays(words: _Words) -> tuple[int, ...]:
    found: set[int] = set()
    while (day := _take_weekday(words)) is not None:
        found.add(day)
        words.take(r"and|и")
    return tuple(sorted(found))


def _take_weekday(words: _Words) -> int | None:
    return next((day for day, pattern in enumerate(_WEEKDAYS) if words.take(pattern)), None)


def _read_date(words: _Words, local: datetime, zone: tzinfo) -> When | None:
    # An ISO instant as models write it: 2026-12-01T09:00.
    words.rest = re.sub(r"^(\d{4}-\d{2}-\d{2})T(?=\d)", r"\1 ", words.rest)
    today = local.date()
    words.take(r"on|next|в(?=\s+\D)|во")
    if iso := words.take(r"(\d{4})-(\d{1,2})-(\d{1,2})"):
        year, month, day = map(int, iso.groups())
        return _at(date(year, month, day), _require_clock(words), local, zone)
    if dotted := words.take(r"(\d{1,2})\.(\d{1,2})\.(\d{4})|(\d{1,2})\.(\d{1,2})(?=\.?\s+(?:at\s+|в\s+)?\d)"):
        numbers = [int(group) for group in dotted.groups() if group]
        at = _require_clock(words)
        if len(numbers) == 3:  # noqa: PLR2004 - day, month and year
            return _at(date(numbers[2], numbers[1], numbers[0]), at, local, zone)
        this_year = date(today.year, numbers[1], numbers[0])
        is_over = to_instant(this_year, at, zone) <= local
        return _at(this_year.replace(year=today.year + is_over), at, local, zone)
    for pattern, distance in _RELATIVE_DAYS.items():
        if words.take(pattern):
            return _at(today + timedelta(days=distance), _require_clock(words), local, zone)
    if (weekday := _take_weekday(words)) is not None:
        at = _require_clock(words)
        day = today + timedelta(days=(weekday - today.weekday()) % 7)
        is_over = to_instant(day, at, zone) <= local
        return _at(day + timedelta(days=7 * is_over), at, local, zone)
    if (found := words.take(_CLOCK_ALONE)) is not None:
        groups = found.groups()
        at = _to_time(groups[0] or groups[3], groups[1], groups[2] or groups[4])
        is_over = to_instant(today, at, zone) <= local
        return _at(today + timedelta(days=is_over), at, local, zone)
    return None


def _at(day: date, at: time, local: datetime, zone: tzinfo) -> When:
    instant = to_instant(day, at, zone)
    if instant <= local:
        raise ScheduleRefused("schedule-past")
    return When(instant)


def _require_clock(words: _Words) -> time:
    found = words.take(_CLOCK)
    if found is None:
        raise ScheduleRefused("schedule-unreadable")
    return _to_time(*found.groups())


def _to_time(hour: str, minute: str | None, half: str | None) -> time:
    number = int(hour)
    if half:
        if not 1 <= number <= 12:  # noqa: PLR2004 - hours of a half day
            raise ScheduleRefused("schedule-unreadable")
        number = number % 12 + (12 if half.lower() == "pm" else 0)
    return time(number, int(minute or 0))
