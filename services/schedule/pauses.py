"""Parses relative times in words, English and Russian: `in 1 hour 30 minutes`, `через полчаса`."""

import calendar
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from core.errors import ScheduleRefused
from services.schedule.clock_words import NUMBER, WEEKDAYS, Words, take_clock, to_number
from services.schedule.times import When, to_instant

MOST_AMOUNTS = 8
"""Maximum number of amounts in one relative time."""
_SHORT_UNITS = {
    r"(?:minutes?|mins?\.?|m|минут(?:[уы]|очек|ку|очку)?|мин\.?|м)": timedelta(minutes=1),
    r"(?:hours?|hrs?\.?|h|час(?:а|ов|ик|ика)?|ч\.?)": timedelta(hours=1),
}
_LONG_UNITS: Mapping[str, tuple[int, int]] = {
    # Days and months: they keep the local time over clock changes.
    r"(?:days?|день|дня|дней|сутки|суток)": (1, 0),
    r"(?:weeks?|недел[юиь])": (7, 0),
    r"(?:months?|месяц(?:а|ев)?)": (0, 1),
    r"(?:years?|год|года|лет)": (0, 12),
}
_FRACTIONS = {
    r"(?:a )?quarter of an hour|четверть часа": timedelta(minutes=15),
    r"half an hour|пол[- ]?часа|полчасика": timedelta(minutes=30),
    r"three quarters of an hour": timedelta(minutes=45),
    r"an hour and a half|полтора часа": timedelta(minutes=90),
}
_FEW = r"минут|час(?:а|ов)|дн(?:я|ей)|недел[иь]|месяц(?:а|ев)"
"""Units whose number follows in Russian for `about`."""
_TIGHT = re.compile(r"^(?:\d{1,4}\s*(?:h|hrs?|m|mins?|ч|м|мин)\s*)+(?!\w)", re.IGNORECASE)
"""Amounts without spaces: `1h30m`."""
_SINGLE_UNIT = r"minute|hour|day|week|month|year|минут(?:ку|очку|у)|час(?:ик)?|день|сутки|неделю|месяц|год"
"""Units that mean one of them without a number."""
_MORE_OF_A_PAUSE = (
    rf"(?:and|и|or|или|to|до)\s+(?:so|an?|half|quarter|пол|\d+|{NUMBER})|[-–—]\s*(?:\d+|{NUMBER})"
    r"|[-–—]\s*(?:пол\w*|half)|с\s+(?:половиной|четвертью)"
)
"""Text after a relative time that shows that only a part of it was parsed."""


@dataclass(slots=True)
class _Pause:
    short: timedelta = timedelta()
    days: int = 0
    months: int = 0
    is_read: bool = False


def read_pause(words: Words, local: datetime) -> When | None:
    """Reads a pause from now on, such as `in 1 hour 30 minutes`, with the time of day at its end if there is one.

    Raises:
        ScheduleRefused: it is read in part only.
    """
    _put_preposition_first(words)
    if not words.take(r"in|через"):
        return None
    words.rest = _TIGHT.sub(lambda tight: re.sub(r"(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)", " ", tight[0]), words.rest)
    pause, before = _Pause(), words.rest
    for _ in range(MOST_AMOUNTS):
        if not _read_amount(words, pause):
            break
        before = words.rest
        words.take(r"and|и")
    words.rest = before
    words.take(r"['’]?\s*time|from now")
    if not pause.is_read or words.sees(_MORE_OF_A_PAUSE):
        raise ScheduleRefused("schedule-unreadable")
    day = _add_months(local.date(), pause.months) + timedelta(days=pause.days)
    if pause.days or pause.months:
        _refuse_half_a_day(words)
    if day == local.date():
        return When(local.astimezone(UTC) + pause.short)
    # The local time of day stays over days; a pause in hours counts hours that pass.
    at = local.time()
    if not pause.short:
        at = take_clock(words, needs_mark=not re.match(r"(?:at|в)\s", words.rest, re.IGNORECASE)) or at
    return When(to_instant(day, at, local.tzinfo or UTC) + pause.short)


def _put_preposition_first(words: Words) -> None:
    """Reads `10 minutes from now` and `минут через десять` as `in 10 minutes` and `через десять минут`."""
    if found := words.take(rf"((?:\d{{1,6}}|an?|{NUMBER})\s+(?:min|hour|day|week|month|year)[a-z]*)\s+from\s+now"):
        words.rest = f"in {found[1]} {words.rest}"
    elif found := words.take(rf"({_FEW})\s+через\s+(\d{{1,4}}|{NUMBER})"):
        words.rest = f"через {found[2]} {found[1]} {words.rest}"


def _refuse_half_a_day(words: Words) -> None:
    """Refuses a weekday or a part of the day behind a pause in days: the pause would be half of the time."""
    days = "|".join(WEEKDAYS)
    half = rf"(?:on|в|во)\s+(?:{days})\b|in the (?:morning|afternoon|evening)\b|(?:утром|дн[её]м|вечером|ночью)\b"
    if re.match(half, words.rest, re.IGNORECASE):
        raise ScheduleRefused("schedule-unreadable")


def _read_amount(words: Words, pause: _Pause) -> bool:
    """Reads a number with its unit, such as `30 minutes`. Returns whether there was one."""
    if (fraction := words.take_key(_FRACTIONS)) is not None:
        pause.short += fraction
        pause.is_read = True
        return True
    before = words.rest
    amount = _take_number(words)
    if amount is None:
        if pause.is_read or not words.sees(_SINGLE_UNIT):
            return not pause.is_read and _read_inverted(words, pause)
        amount = 1.0
    if (short := words.take_key(_SHORT_UNITS)) is not None:
        pause.short += amount * short
    elif amount.is_integer() and (unit := words.take_key(_LONG_UNITS)) is not None:
        pause.days += int(amount) * unit[0]
        pause.months += int(amount) * unit[1]
    else:
        # The text begins with a number.
        words.rest = before
        return False
    pause.is_read = True
    return True


def _take_number(words: Words) -> float | None:
    """Reads a number in digits or words; `an` counts as one."""
    if (digits := words.take(r"\d{1,6}(?:[.,]5)?")) is not None:
        return float(digits.group().replace(",", "."))
    if (spelled := words.take(NUMBER)) is not None:
        return float(to_number(spelled.group()))
    return 1.0 if words.take(r"an?") else None


def _read_inverted(words: Words, pause: _Pause) -> bool:
    """Reads `минут десять`, about ten minutes. Returns whether there was such a pause."""
    if (found := words.take(rf"({_FEW})\s+(\d{{1,4}}|{NUMBER})")) is None:
        return False
    unit, number = found.groups()
    amount = int(number) if number.isdecimal() else to_number(number)
    words.rest = f"{amount} {unit} {words.rest}"
    return _read_amount(words, pause)


def _add_months(day: date, months: int) -> date:
    """Returns the same day of a later month, or its last day."""
    number = day.month - 1 + months
    year, month = day.year + number // 12, number % 12 + 1
    return date(year, month, min(day.day, calendar.monthrange(year, month)[1]))
