"""Times of schedules: the forms of both languages, the next time of each rule, and clock changes."""

from contextlib import suppress
from datetime import UTC, datetime
from time import process_time
from zoneinfo import ZoneInfo

import pytest

from core.errors import ScheduleRefused
from services.schedule.phrases import parse_when
from services.schedule.times import Frequency, Recurrence

NOW = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
"""A Friday, 09:00 in Berlin."""
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "due", "rule"),
    [
        ("in 10 minutes take the cake out", "2027-01-15 09:10", None),
        ("in an hour call", "2027-01-15 10:00", None),
        ("in 2 days call", "2027-01-17 09:00", None),
        ("через 10 минут достать пирог", "2027-01-15 09:10", None),
        ("через час позвонить", "2027-01-15 10:00", None),
        ("Через неделю позвонить", "2027-01-22 09:00", None),
        ("2027-12-01 09:00 call", "2027-12-01 09:00", None),
        ("2027-12-01T09:00 call", "2027-12-01 09:00", None),
        ("on 2027-12-01 at 9 call", "2027-12-01 09:00", None),
        ("1.12.2027 в 9:30 позвонить", "2027-12-01 09:30", None),
        ("14.01 09:00 call", "2028-01-14 09:00", None),  # over this year
        ("today 18:00 call", "2027-01-15 18:00", None),
        ("tomorrow at 9am call", "2027-01-16 09:00", None),
        ("tomorrow at 12 am call", "2027-01-16 00:00", None),
        ("завтра в 9:00 позвонить", "2027-01-16 09:00", None),
        ("послезавтра 9.30 позвонить", "2027-01-17 09:30", None),
        ("friday 08:00 call", "2027-01-22 08:00", None),  # today, and over
        ("в пятницу в 18:00 позвонить", "2027-01-15 18:00", None),
        ("18:00 call", "2027-01-15 18:00", None),
        ("at 8:00 call", "2027-01-16 08:00", None),
        ("8 pm call", "2027-01-15 20:00", None),
        ("every day 09:00 call", "2027-01-16 09:00", "day 09:00"),
        ("daily 10:00 call", "2027-01-15 10:00", "day 10:00"),
        ("каждый день в 10:00 позвонить", "2027-01-15 10:00", "day 10:00"),
        ("every weekday 08:00 call", "2027-01-18 08:00", "week 08:00 0,1,2,3,4"),
        ("every monday and thursday 09:00 call", "2027-01-18 09:00", "week 09:00 0,3"),
        ("каждый понедельник, среду 09:00 позвонить", "2027-01-18 09:00", "week 09:00 0,2"),
        ("every week 08:00 call", "2027-01-22 08:00", "week 08:00 4"),
        ("every month 31 09:00 call", "2027-01-31 09:00", "month 09:00 31"),
        ("every month on the 1st at 9:00 call", "2027-02-01 09:00", "month 09:00 1"),
        ("every month 10:00 call", "2027-01-15 10:00", "month 10:00 15"),
        ("каждый месяц 1 числа в 9:00 позвонить", "2027-02-01 09:00", "month 09:00 1"),
        ("every 2 hours call", "2027-01-15 11:00", "hours 2"),
        # Half of the time must not become part of the text.
        ("in 1 hour 30 minutes call", "2027-01-15 10:30", None),
        ("через 1 час 30 минут позвонить", "2027-01-15 10:30", None),
        ("in half an hour call", "2027-01-15 09:30", None),
        ("через полчаса позвонить", "2027-01-15 09:30", None),
        ("через полтора часа позвонить", "2027-01-15 10:30", None),
        ("in 1.5 hours call", "2027-01-15 10:30", None),
        ("in 2 days at 9 call", "2027-01-17 09:00", None),
        ("через неделю в 10:00 позвонить", "2027-01-22 10:00", None),
        ("in a month call", "2027-02-15 09:00", None),
        ("через год позвонить", "2028-01-15 09:00", None),
        ("завтра в 9 вечера позвонить", "2027-01-16 21:00", None),
        ("завтра вечером в 9 позвонить", "2027-01-16 21:00", None),
        ("завтра в 9 часов утра позвонить", "2027-01-16 09:00", None),
        ("завтра в час дня позвонить", "2027-01-16 13:00", None),
        ("завтра в 2 часа ночи позвонить", "2027-01-16 02:00", None),
        ("tomorrow at 9 o'clock call", "2027-01-16 09:00", None),
        ("tomorrow at 9 in the evening call", "2027-01-16 21:00", None),
        ("tomorrow morning at 9 call", "2027-01-16 09:00", None),
        ("tonight at 8 call", "2027-01-15 20:00", None),
        ("tonight at 8pm call", "2027-01-15 20:00", None),
        ("tomorrow at nine call", "2027-01-16 09:00", None),
        ("завтра в девять тридцать позвонить", "2027-01-16 09:30", None),
        ("завтра в полдень позвонить", "2027-01-16 12:00", None),
        ("at midnight call", "2027-01-16 00:00", None),
        ("8:00 tomorrow call", "2027-01-16 08:00", None),
        ("10:00 on friday call", "2027-01-15 10:00", None),
        ("в 9:30 завтра позвонить", "2027-01-16 09:30", None),
        ("on December 1 at 9:00 call", "2027-12-01 09:00", None),
        ("1 декабря в 9:00 позвонить", "2027-12-01 09:00", None),
        ("5 января 9:00 позвонить", "2028-01-05 09:00", None),
        ("29.02 09:00 call", "2028-02-29 09:00", None),
        ("2027-12-01T09:00:00 call", "2027-12-01 09:00", None),
        ("2027-12-01T09:00:00Z call", "2027-12-01 10:00", None),
        ("2027-12-01T09:00:00+03:00 call", "2027-12-01 07:00", None),
        ("2027-12-01T09:00+03:00 call", "2027-12-01 07:00", None),
        ("2027-12-01T09:00Z call", "2027-12-01 10:00", None),
        ("по понедельникам в 9 позвонить", "2027-01-18 09:00", "week 09:00 0"),
        ("по будням в 10 позвонить", "2027-01-15 10:00", "week 10:00 0,1,2,3,4"),
        ("every weekend 10:00 call", "2027-01-16 10:00", "week 10:00 5,6"),
        ("every evening at 8 call", "2027-01-15 20:00", "day 20:00"),
        ("каждый час позвонить", "2027-01-15 10:00", "hours 1"),
        ("в пятницу 22 января в 10:00 позвонить", "2027-01-22 10:00", None),
        ("friday, January 22 at 10:00 call", "2027-01-22 10:00", None),
        ("завтра в 12 ночи позвонить", "2027-01-16 00:00", None),
        # Numbers in words, and the Russian order for `about`.
        ("in ten minutes call", "2027-01-15 09:10", None),
        ("in twenty five minutes call", "2027-01-15 09:25", None),
        ("in twenty-five minutes call", "2027-01-15 09:25", None),
        ("in one hour and ten minutes call", "2027-01-15 10:10", None),
        ("in two weeks at nine call", "2027-01-29 09:00", None),
        ("через двадцать пять минут позвонить", "2027-01-15 09:25", None),
        ("через две недели позвонить", "2027-01-29 09:00", None),
        ("через один час пятнадцать минут позвонить", "2027-01-15 10:15", None),
        ("через минут десять позвонить", "2027-01-15 09:10", None),
        ("через часа 2 позвонить", "2027-01-15 11:00", None),
        ("tomorrow at half past nine call", "2027-01-16 09:30", None),
        ("tomorrow at a quarter to nine in the evening call", "2027-01-16 20:45", None),
        ("tomorrow at quarter past 9 call", "2027-01-16 09:15", None),
        ("завтра в половине десятого позвонить", "2027-01-16 09:30", None),
        ("завтра в полдесятого вечера позвонить", "2027-01-16 21:30", None),
        ("завтра без четверти час позвонить", "2027-01-16 12:45", None),
        ("next friday at 18:00 call", "2027-01-22 18:00", None),  # said on a Friday
        ("next monday at 9:00 call", "2027-01-18 09:00", None),
        ("в следующую пятницу в 8:00 позвонить", "2027-01-22 08:00", None),
        # Minutes behind an hour in words, and hours that are written in other ways.
        ("завтра в 9 часов 30 минут позвонить", "2027-01-16 09:30", None),
        ("завтра в 9 ч. 30 мин. позвонить", "2027-01-16 09:30", None),
        ("завтра в 9ч30м позвонить", "2027-01-16 09:30", None),
        ("tomorrow 9h30 call", "2027-01-16 09:30", None),
        ("tomorrow @9pm call", "2027-01-16 21:00", None),
        ("tomorrow at 9\uff1a30 call", "2027-01-16 09:30", None),
        ("завтра к 9 позвонить", "2027-01-16 09:00", None),
        ("в шесть вечера позвонить", "2027-01-15 18:00", None),
        ("this evening at 7 call", "2027-01-15 19:00", None),
        # Pauses in short, and as they are said.
        ("in 1h30m call", "2027-01-15 10:30", None),
        ("через 2ч позвонить", "2027-01-15 11:00", None),
        ("через 5 мин. позвонить", "2027-01-15 09:05", None),
        ("in 10 minutes: call", "2027-01-15 09:10", None),
        ("10 minutes from now call", "2027-01-15 09:10", None),
        ("in two days' time call", "2027-01-17 09:00", None),
        ("минут через десять позвонить", "2027-01-15 09:10", None),
        ("через сутки позвонить", "2027-01-16 09:00", None),
        ("через четверть часа позвонить", "2027-01-15 09:15", None),
        # Rules without `every`.
        ("mondays at 9:00 call", "2027-01-18 09:00", "week 09:00 0"),
        ("on weekdays at 10:00 call", "2027-01-15 10:00", "week 10:00 0,1,2,3,4"),
        ("по пн, ср, пт в 9:00 позвонить", "2027-01-18 09:00", "week 09:00 0,2,4"),
        ("monthly on the 1st at 9:00 call", "2027-02-01 09:00", "month 09:00 1"),
        ("ежемесячно 1 числа в 9:00 позвонить", "2027-02-01 09:00", "month 09:00 1"),
        ("every two hours call", "2027-01-15 11:00", "hours 2"),
        ("ежечасно позвонить", "2027-01-15 10:00", "hours 1"),
    ],
)
def test_parse_when_reads_each_form(text: str, due: str, rule: str | None) -> None:
    when, rest = parse_when(text, NOW, BERLIN)
    assert f"{when.first.astimezone(BERLIN):%Y-%m-%d %H:%M}" == due
    assert (None if when.recurrence is None else str(when.recurrence)) == rule
    assert rest in {"call", "take the cake out", "позвонить", "достать пирог"}
    if when.recurrence is not None:
        assert Recurrence.parse(str(when.recurrence)) == when.recurrence


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "schedule-unreadable"),
        ("call Ann", "schedule-unreadable"),
        ("tomorrow call Ann", "schedule-unreadable"),
        ("tomorrow 25:00 call", "schedule-unreadable"),
        ("in 999999 weeks call", "schedule-unreadable"),  # beyond the calendar
        ("2027-02-30 09:00 call", "schedule-unreadable"),
        ("every moon 09:00 call", "schedule-unreadable"),
        ("every 0 hours call", "schedule-unreadable"),
        ("every month 40 09:00 call", "schedule-unreadable"),
        ("13 pm call", "schedule-unreadable"),
        ("завтра в 9 дня рождения не забыть", "schedule-unreadable"),
        ("через пару минут позвонить", "schedule-unreadable"),
        ("at 9 call", "schedule-unreadable"),  # of which day or which half
        # Half of a time, with the rest left in the text.
        ("в пятницу 23 января в 10:00 позвонить", "schedule-unreadable"),  # a Saturday
        ("завтра 16 января в 10 позвонить", "schedule-unreadable"),
        ("tomorrow 9:00-10:00 call", "schedule-unreadable"),
        ("tomorrow at 9–10 call", "schedule-unreadable"),
        ("tomorrow at 9:00+03:00 call", "schedule-unreadable"),
        ("2027-12-01 09:00 UTC call", "schedule-unreadable"),
        ("завтра в 9 по мск позвонить", "schedule-unreadable"),
        ("every day at 9 and 21 call", "schedule-unreadable"),
        ("завтра в 9 или в 10 позвонить", "schedule-unreadable"),
        ("завтра в 9.5 позвонить", "schedule-unreadable"),
        ("через неделю в пятницу в 9 позвонить", "schedule-unreadable"),
        ("через 2 дня утром позвонить", "schedule-unreadable"),
        ("tonight at 12 call", "schedule-unreadable"),
        ("сегодня вечером в 1 позвонить", "schedule-unreadable"),
        ("завтра в 12 вечера позвонить", "schedule-unreadable"),
        ("30 февраля 9:00 позвонить", "schedule-unreadable"),
        # A zone that is not read, wherever it stands.
        ("tomorrow 9:00 Moscow time call", "schedule-unreadable"),
        ("tomorrow at noon Moscow time call", "schedule-unreadable"),
        ("9:00 tomorrow Moscow time call", "schedule-unreadable"),
        ("tomorrow 9:00 (Eastern Standard Time) call", "schedule-unreadable"),
        ("tomorrow 9am PT call", "schedule-unreadable"),
        ("tomorrow 9:00 Europe/Moscow call", "schedule-unreadable"),
        ("every day at 9:00 GMT+3 call", "schedule-unreadable"),
        ("завтра в 9:00 по московскому времени позвонить", "schedule-unreadable"),
        ("завтра в 9:00 (МСК) позвонить", "schedule-unreadable"),
        # The day or the rule stands behind the time.
        ("9:00 every day call", "schedule-unreadable"),
        ("tomorrow 9:00 daily call", "schedule-unreadable"),
        ("9:00 по будням позвонить", "schedule-unreadable"),
        ("9:00 in 2 days call", "schedule-unreadable"),
        ("9:00 2 december call", "schedule-unreadable"),
        ("9:00 1.12 call", "schedule-unreadable"),
        ("9:00 on the 5th call", "schedule-unreadable"),
        ("08:00 2099-01-01 call", "schedule-unreadable"),
        ("9:00 next saturday call", "schedule-unreadable"),  # tomorrow, or in a week
        ("every hour at :30 call", "schedule-unreadable"),
        # More of a number, of a time, of a rule.
        ("in hours call", "schedule-unreadable"),
        ("in an hour or two call", "schedule-unreadable"),
        ("in 2 hours and a quarter call", "schedule-unreadable"),
        ("через час с половиной позвонить", "schedule-unreadable"),
        ("через минут десять-пятнадцать позвонить", "schedule-unreadable"),
        ("tomorrow at ten to nine call", "schedule-unreadable"),
        ("tomorrow at nine thirty five call", "schedule-unreadable"),
        ("завтра в девять двадцать позвонить", "schedule-unreadable"),
        ("at half past nine call", "schedule-unreadable"),
        ("tomorrow 9:00, 18:00 call", "schedule-unreadable"),
        ("завтра в 9 часов тридцать минут позвонить", "schedule-unreadable"),
        ("завтра в 09 : 30 позвонить", "schedule-unreadable"),
        ("12:00 midnight call", "schedule-unreadable"),
        ("через час-полтора позвонить", "schedule-unreadable"),
        ("every day at 9:00 except sunday call", "schedule-unreadable"),
        ("every weekday 9:00 for two weeks call", "schedule-unreadable"),
        ("каждый день в 9:00 до пятницы звонить", "schedule-unreadable"),
        ("next saturday at 9:00 call", "schedule-unreadable"),  # tomorrow, or in eight days
        ("today 08:00 call", "schedule-past"),
        ("2020-01-01 09:00 call", "schedule-past"),
    ],
)
def test_parse_when_refuses(text: str, key: str) -> None:
    with pytest.raises(ScheduleRefused, match=key):
        parse_when(text, NOW, BERLIN)


def test_text_behind_a_time_stays_whole() -> None:
    texts = (
        "in 10 minutes and then call",
        "tomorrow at 9 - call",
        "tomorrow at 9 20 pushups",
        "завтра в 9 и позвонить",
    )
    assert [parse_when(text, NOW, BERLIN)[1] for text in texts] == [
        "and then call",
        "- call",
        "20 pushups",
        "и позвонить",
    ]


def test_recurrence_keeps_the_local_time_over_clock_changes() -> None:
    rule = Recurrence.parse("day 09:00")
    due = datetime(2027, 3, 27, 8, 0, tzinfo=UTC)
    assert rule.next_after(due, due, BERLIN) == datetime(2027, 3, 28, 7, 0, tzinfo=UTC)


def test_a_skipped_local_time_is_due_as_much_later() -> None:
    due = Recurrence.parse("day 02:30").next_after(datetime(2027, 3, 27, 12, tzinfo=UTC), NOW, BERLIN)
    assert f"{due.astimezone(BERLIN):%Y-%m-%d %H:%M}" == "2027-03-28 03:30"


@pytest.mark.parametrize(
    ("text", "now", "zone", "due"),
    [
        ("tomorrow at nine call", "2026-11-28T23:59", "Asia/Kathmandu", "2026-11-29T09:00+05:45"),
        ("завтра в девять позвонить", "2026-12-31T23:59", "Pacific/Kiritimati", "2027-01-01T09:00+14:00"),
        ("9:00 call", "2026-11-28T23:59", "Pacific/Chatham", "2026-11-29T09:00+13:45"),
        # A day keeps the local time over a clock change, 24 hours do not.
        ("in 1 day call", "2027-03-27T12:00", "Europe/Berlin", "2027-03-28T12:00+02:00"),
        ("in 24 hours call", "2027-03-27T12:00", "Europe/Berlin", "2027-03-28T13:00+02:00"),
        ("in 30 minutes call", "2027-03-28T01:45", "Europe/Berlin", "2027-03-28T03:15+02:00"),
        # A local time that is skipped, one that comes twice, and a day that begins at one.
        ("tomorrow 02:30 call", "2027-03-27T12:00", "Europe/Berlin", "2027-03-28T03:30+02:00"),
        ("tomorrow 02:30 call", "2027-10-30T12:00", "Europe/Berlin", "2027-10-31T02:30+02:00"),
        ("2:30 call", "2027-10-31T02:15", "Europe/Berlin", "2027-10-31T02:30+02:00"),
        ("2:30 call", "2027-10-31T02:45", "Europe/Berlin", "2027-10-31T02:30+01:00"),
        ("today at 2:30 call", "2027-10-31T01:15+00:00", "Europe/Berlin", "2027-10-31T02:30+01:00"),
        ("at midnight call", "2026-09-05T12:00", "America/Santiago", "2026-09-06T01:00-03:00"),
        ("in a month call", "2027-01-31T12:00", "America/St_Johns", "2027-02-28T12:00-03:30"),
    ],
)
def test_parse_when_in_odd_zones_and_over_clock_changes(text: str, now: str, zone: str, due: str) -> None:
    where = ZoneInfo(zone)
    instant = datetime.fromisoformat(now)
    instant = instant if instant.tzinfo is not None else instant.replace(tzinfo=where)
    when, _ = parse_when(text, instant.astimezone(UTC), where)
    assert when.first.astimezone(where).isoformat(timespec="minutes") == due


def test_a_short_month_has_its_last_day() -> None:
    rule = Recurrence.parse("month 09:00 31")
    january = datetime(2027, 1, 31, 8, 0, tzinfo=UTC)
    assert rule.next_after(january, january, BERLIN).astimezone(BERLIN).date().isoformat() == "2027-02-28"


def test_hours_that_passed_are_left_out() -> None:
    """Their rhythm stays."""
    rule = Recurrence(Frequency.HOURS, hours=2)
    due = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
    late = datetime(2027, 1, 15, 13, 30, tzinfo=UTC)
    assert rule.next_after(late, due, UTC) == datetime(2027, 1, 15, 14, 0, tzinfo=UTC)
    assert rule.next_after(due, due, UTC) == datetime(2027, 1, 15, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "in " + "9" * 100_000,
        "in twenty" + " " * 100_000 + "x",
        "in " + "an hour and " * 10_000,
        "in " + "one " * 25_000,
        "tomorrow at 9" + " " * 100_000,
        "tomorrow 9:00 " + "a" * 100_000,
        "tomorrow 9:00 " + "a-" * 50_000,
        "tomorrow 9:00 (" + "a_" * 50_000,
        "завтра в 9:00 " + "по " * 33_000,
        "every " + "monday and " * 10_000,
        "по " + "понедельникам " * 8_000,
        "\n" * 100_000,
    ],
    ids=lambda text: text[:20],
)
def test_no_text_costs_more_than_its_length(text: str) -> None:
    began = process_time()
    with suppress(ScheduleRefused):
        parse_when(text, NOW, BERLIN)
    assert process_time() - began < 0.5
