"""Recurrence rules of schedules and their next due times."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum


class Frequency(StrEnum):
    """Unit of a recurrence."""

    HOURS = "hours"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A recurrence rule.

    Args:
        hours: interval of `HOURS`.
        at: local time of day of the other frequencies.
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
            zone: time zone of the time of day. A time skipped by a clock change is due as much later.
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
