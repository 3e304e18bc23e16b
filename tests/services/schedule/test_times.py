"""Times of schedules: the forms of both languages, the next time of each rule, and clock changes."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from core.errors import ScheduleRefused
from services.schedule.times import Frequency, Recurrence, parse_when

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
        ("каждый час позвонить", "2027-01-15 10:00", "hours 1"),
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
        ("in ten minutes call", "schedule-unreadable"),
        ("in 999999 weeks call", "schedule-unreadable"),  # beyond the calendar
        ("2027-02-30 09:00 call", "schedule-unreadable"),
        ("every moon 09:00 call", "schedule-unreadable"),
        ("every 0 hours call", "schedule-unreadable"),
        ("every month 40 09:00 call", "schedule-unreadable"),
        ("13 pm call", "schedule-unreadable"),
        ("today 08:00 call", "schedule-past"),
        ("2020-01-01 09:00 call", "schedule-past"),
    ],
)
def test_parse_when_refuses(text: str, key: str) -> None:
    with pytest.raises(ScheduleRefused, match=key):
        parse_when(text, NOW, BERLIN)


def test_recurrence_keeps_the_local_time_over_clock_changes() -> None:
    rule = Recurrence.parse("day 09:00")
    due = datetime(2027, 3, 27, 8, 0, tzinfo=UTC)
    assert rule.next_after(due, due, BERLIN) == datetime(2027, 3, 28, 7, 0, tzinfo=UTC)


def test_a_skipped_local_time_is_due_as_much_later() -> None:
    due = Recurrence.parse("day 02:30").next_after(datetime(2027, 3, 27, 12, tzinfo=UTC), NOW, BERLIN)
    assert f"{due.astimezone(BERLIN):%Y-%m-%d %H:%M}" == "2027-03-28 03:30"


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
