"""Parses times at the beginning of a text, in English and Russian.

An unknown form is refused rather than guessed: the words after a time are the text of the reminder, so a time that is
parsed in part would become a reminder at the wrong hour.
"""

import calendar
import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, tzinfo

from core.errors import ScheduleRefused
from services.schedule.clock_words import (
    EVENING,
    MONTHS,
    MORNING,
    NIGHT,
    NUMBER,
    SPELLED_HOUR,
    WEEKDAYS,
    ZONE,
    Words,
    require_clock,
    take_clock,
    to_number,
)
from services.schedule.pauses import read_pause
from services.schedule.times import Frequency, Recurrence, When, to_instant

LONGEST_MONTH = 31
MOST_HOURS = 24 * 7
"""Maximum interval of a recurrence in hours."""
LEAP_YEARS = 9
"""Years within which each date occurs, 29 February included."""


def parse_when(text: str, now: datetime, zone: tzinfo) -> tuple[When, str]:
    """Reads the time at the beginning of a text. Returns it with the rest of the text.

    Raises:
        ScheduleRefused: the text begins with no time, or with one that is over.
    """
    words = Words(text.strip())
    local = now.astimezone(zone)
    try:
        when = read_pause(words, local) or _read_recurrence(words, now, zone) or _read_date(words, local, zone)
    except (ValueError, OverflowError):
        raise ScheduleRefused("schedule-unreadable") from None
    is_half_read = ZONE.match(words.rest) or (
        when is not None and words.sees(_LIMIT if when.recurrence else _MORE_DAYS)
    )
    if when is None or is_half_read:
        raise ScheduleRefused("schedule-unreadable")
    return when, words.rest.removeprefix(":").lstrip()


_RELATIVE_DAYS: Mapping[str, int] = {
    r"(?:today|tonight|сегодня)": 0,
    r"(?:tomorrow|завтра)": 1,
    r"(?:(?:the )?day after tomorrow|послезавтра)": 2,
}
_LIMIT = (
    r"except|but\s+not|excluding|кроме|за\s+исключением|в\s+течение|(?:until|till|through|starting|начиная)"
    rf"|(?:at|в)\s+:?\d+|(?:for|from|с|до)\s+(?:\d+|{NUMBER}|{'|'.join((*MONTHS, *WEEKDAYS))}|the|next|tomorrow"
    r"|завтра|следующ\w*|конца)"
)
"""Text after a recurrence that limits it, which rules do not support."""
_EVERY = r"(?:every|each|кажд(?:ый|ую|ое|ые))"
_MORE_DAYS = (
    rf"{_EVERY}|(?:daily|weekly|monthly|ежедневно|еженедельно|ежемесячно)"
    r"|по\s+(?:будн|рабоч|выходн|понед|втор|сред|четв|пятн|субб|воскр)\w*"
    rf"|(?:in|через)\s+(?:\d+|an?|{NUMBER})\s+(?:min|hour|day|week|month|year|мин|час|дн|ден|нед|мес|год|лет)\w*|\d{{1,2}}[./]\d{{1,2}}|\d{{4}}-\d{{1,2}}-\d{{1,2}}"
    rf"|(?:on\s+)?(?:the\s+)?\d{{1,2}}(?:st|nd|rd|th|-?го|\s+числа)"
    rf"|(?:on\s+)?(?:the\s+)?\d{{1,2}}(?:\s+of)?\s+(?:{'|'.join(MONTHS)})|(?:on\s+)?(?:{'|'.join(MONTHS)})\s+\d{{1,2}}"
)
"""Text after a time that repeats it or moves it to another day: `9:00 every day`, `9:00 on 2 December`."""
_ON = rf"on|next|this|(?:во?\s+)?(?:эт|следующ)(?:ий|ую|ее|ей|у|от|о)|в(?=\s+\D)(?!\s+{SPELLED_HOUR}\b)|во"
_NEXT = r"next|(?:в\s+)?следующ\w+"
_OFFSET = r"(?:\s*(z|[+-]\d{2}:?\d{2}))?"


def _read_recurrence(words: Words, now: datetime, zone: tzinfo) -> When | None:
    recurrence = _read_rule(words, now.astimezone(zone))
    return When(recurrence.next_after(now, now, zone), recurrence) if recurrence is not None else None


_DAYS = {
    r"days?|день": None,
    r"morning|утро": MORNING,
    r"evening|вечер": EVENING,
    r"night|ночь": NIGHT,
}
_PLURAL_DAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)days|weekdays|workdays|weekends)"
_EACH_DAY = (
    r"по(?=\s+(?:будн|рабоч|выходн|понед|втор|сред|четв|пятн|субб|воскр|(?:пн|вт|ср|чт|пт|сб|вс)\b))"
    rf"|on(?=\s+{_PLURAL_DAY}\b)"
)
"""The beginning of a rule without `every`."""
_WORKDAYS, _WEEKEND = (0, 1, 2, 3, 4), (5, 6)


def _read_rule(words: Words, local: datetime) -> Recurrence | None:
    if words.take(r"daily|ежедневно"):
        return Recurrence(Frequency.DAY, at=require_clock(words))
    if words.take(r"hourly|ежечасно"):
        return Recurrence(Frequency.HOURS, hours=1)
    if words.take(r"monthly|ежемесячно"):
        return _read_month(words, local)
    if words.take(_EACH_DAY) or words.sees(_PLURAL_DAY):
        return _read_days(words)
    if words.take(r"weekly|еженедельно"):
        return _read_week(words, local)
    return _read_every(words, local) if words.take(_EVERY) else None


def _read_every(words: Words, local: datetime) -> Recurrence:
    if hours := words.take(rf"(?:(\d{{1,3}}|{NUMBER})\s*)?(?:hours?|час(?:а|ов)?)"):
        number = hours.group(1) or "1"
        count = int(number) if number.isdecimal() else to_number(number)
        if not 1 <= count <= MOST_HOURS:
            raise ScheduleRefused("schedule-unreadable")
        return Recurrence(Frequency.HOURS, hours=count)
    for pattern, part in _DAYS.items():
        if words.take(pattern):
            return Recurrence(Frequency.DAY, at=require_clock(words, part))
    if words.take(r"weeks?|неделю"):
        return _read_week(words, local)
    if words.take(r"months?|месяц"):
        return _read_month(words, local)
    return _read_days(words)


def _read_days(words: Words) -> Recurrence:
    if words.take(r"weekdays?|workdays?|working\s+days?|будн\w+(?:\s+дн\w+)?|рабоч\w+\s+д\w+"):
        days: tuple[int, ...] = _WORKDAYS
    elif words.take(r"weekends?|выходн\w+"):
        days = _WEEKEND
    else:
        days = _read_weekdays(words)
    if not days:
        raise ScheduleRefused("schedule-unreadable")
    return Recurrence(Frequency.WEEK, at=require_clock(words), days=days)


def _read_week(words: Words, local: datetime) -> Recurrence:
    words.take(r"on|по|в(?=\s+\D)|во")
    days = _read_weekdays(words) or (local.weekday(),)
    return Recurrence(Frequency.WEEK, at=require_clock(words), days=days)


def _read_month(words: Words, local: datetime) -> Recurrence:
    day = words.take(r"(?:on\s+)?(?:the\s+)?(\d{1,2})(?:st|nd|rd|th)?(?:\s*числа)?(?=\s+(?:at\s+|в\s+)?\d)")
    number = int(day.group(1)) if day is not None else local.day
    if not 1 <= number <= LONGEST_MONTH:
        raise ScheduleRefused("schedule-unreadable")
    return Recurrence(Frequency.MONTH, at=require_clock(words), days=(number,))


def _read_weekdays(words: Words) -> tuple[int, ...]:
    found: set[int] = set()
    while (day := words.take_index(WEEKDAYS)) is not None:
        found.add(day)
        words.take(r"and|и")
    return tuple(sorted(found))


def _read_date(words: Words, local: datetime, zone: tzinfo) -> When | None:
    if words.take(r"this(?=\s+(?:morning|afternoon|evening)\b)"):
        words.rest = f"today {words.rest}"
    is_next = words.sees(_NEXT)
    words.take(_ON)
    iso = words.take(rf"(\d{{4}}-\d{{2}}-\d{{2}})(?:T|\s+)(\d{{1,2}}:\d{{2}}):00(?:\.0+)?{_OFFSET}")
    # `T` is required where seconds are missing: in `2026-12-01 9:00-10:00` the end of the range is no offset.
    if iso := iso or words.take(r"(\d{4}-\d{2}-\d{2})T(\d{1,2}:\d{2})(z|[+-]\d{2}:?\d{2})"):
        # An instant as models write it.
        at = time.fromisoformat(iso.group(2).zfill(5))
        offset = datetime.fromisoformat(f"2000-01-01T00:00:00{iso.group(3)}").tzinfo if iso.group(3) else zone
        return _at(date.fromisoformat(iso.group(1)), at, local, offset or zone)
    # The same without seconds is a date and a time of day.
    words.rest = re.sub(r"^(\d{4}-\d{2}-\d{2})T(?=\d)", r"\1 ", words.rest)
    if (day := _read_calendar_day(words)) is not None:
        return _on_named_day(day, require_clock(words), local, zone)
    is_tonight = words.rest[:7].lower() == "tonight"
    if (distance := words.take_key(_RELATIVE_DAYS)) is not None:
        at = require_clock(words, EVENING if is_tonight else None)
        return _at(local.date() + timedelta(days=distance), at, local, zone)
    if (weekday := words.take_index(WEEKDAYS)) is not None:
        if (named := _read_named_day(words)) is not None:
            return _on_named_day(named, require_clock(words), local, zone, weekday)
        return _on_weekday(weekday, require_clock(words), local, zone, is_next=is_next)
    return _read_clock_first(words, local, zone)


def _read_clock_first(words: Words, local: datetime, zone: tzinfo) -> When | None:
    """Reads a time of day, and the day after it if there is one: `9:00 tomorrow`."""
    at = take_clock(words, needs_mark=True)
    if at is None:
        return None
    if (distance := words.take_key(_RELATIVE_DAYS)) is not None:
        return _at(local.date() + timedelta(days=distance), at, local, zone)
    before, is_next = words.rest, words.sees(_NEXT)
    words.take(_ON)
    if (weekday := words.take_index(WEEKDAYS)) is not None:
        return _on_weekday(weekday, at, local, zone, is_next=is_next)
    words.rest = before
    is_over = _next_instant(local.date(), at, local, zone) <= local
    return _at(local.date() + timedelta(days=is_over), at, local, zone)


def _read_calendar_day(words: Words) -> tuple[int | None, int, int] | None:
    """Reads a date: year, if any, month and day."""
    if iso := words.take(r"(\d{4})-(\d{1,2})-(\d{1,2})"):
        year, month, day = map(int, iso.groups())
        return year, month, day
    if dotted := words.take(r"(\d{1,2})\.(\d{1,2})(?:\.(\d{4})|(?=\.?\s+(?:at\s+|в\s+)?\d))"):
        day, month, year = dotted.groups()
        return int(year) if year else None, int(month), int(day)
    return _read_named_day(words)


def _read_named_day(words: Words) -> tuple[int | None, int, int] | None:
    """Reads a date with the name of its month."""
    for number, name in enumerate(MONTHS, 1):
        year = r"(?:,?\s+(\d{4})(?:\s+года)?)?"
        if found := words.take(rf"(?:the\s+)?(\d{{1,2}})(?:st|nd|rd|th)?(?:\s+of)?\s+{name}\.?{year}"):
            return int(found.group(2)) if found.group(2) else None, number, int(found.group(1))
        if found := words.take(rf"{name}\.?\s+(\d{{1,2}})(?:st|nd|rd|th)?{year}"):
            return int(found.group(2)) if found.group(2) else None, number, int(found.group(1))
    return None


def _on_named_day(
    day: tuple[int | None, int, int], at: time, local: datetime, zone: tzinfo, weekday: int | None = None
) -> When:
    """Returns the time on a date, which is refused if it is no such weekday."""
    year, month, number = day
    if year is not None:
        when = _at(date(year, month, number), at, local, zone)
    else:
        when = When(_next_date(month, number, at, local, zone))
    if weekday is not None and when.first.astimezone(zone).weekday() != weekday:
        raise ScheduleRefused("schedule-unreadable")
    return when


def _next_date(month: int, day: int, at: time, local: datetime, zone: tzinfo) -> datetime:
    for year in range(local.year, local.year + LEAP_YEARS):
        if (
            day <= calendar.monthrange(year, month)[1]
            and (found := to_instant(date(year, month, day), at, zone)) > local
        ):
            return found
    raise ScheduleRefused("schedule-unreadable")


def _on_weekday(weekday: int, at: time, local: datetime, zone: tzinfo, *, is_next: bool) -> When:
    if is_next and weekday > local.weekday():
        # Of this week, or of the next one.
        raise ScheduleRefused("schedule-unreadable")
    if is_next:
        return _at(local.date() + timedelta(days=weekday - local.weekday() + 7), at, local, zone)
    day = local.date() + timedelta(days=(weekday - local.weekday()) % 7)
    is_over = _next_instant(day, at, local, zone) <= local
    return _at(day + timedelta(days=7 * is_over), at, local, zone)


def _at(day: date, at: time, local: datetime, zone: tzinfo) -> When:
    instant = _next_instant(day, at, local, zone)
    if instant <= local:
        raise ScheduleRefused("schedule-past")
    return When(instant)


def _next_instant(day: date, at: time, local: datetime, zone: tzinfo) -> datetime:
    """Returns the instant of a local time; of one that comes twice, the second where the first is over."""
    first, second = to_instant(day, at, zone), to_instant(day, at.replace(fold=1), zone)
    return second if first <= local < second else first
