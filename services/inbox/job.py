"""What the inbox keeps: a piece of work that survives the process."""

from dataclasses import dataclass

LARGEST_PRIORITY = 2**31 - 1
"""The queue orders by a 32-bit number."""
ONCE_MORE = "~"
"""What stands in an id between that of a job that was given up and the number of this attempt at it."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work.

    Args:
        id: tells it from all others for ever; putting the same one again changes nothing.
        lane: the jobs of one lane are done one after the other, those of different lanes at the same time.
        priority: the place within the lane, 1 to `LARGEST_PRIORITY`, the smallest first; an update's number.
        payload: what is to be done, as JSON.
        is_limited: whether it is turned away when too many jobs of its lane wait.
    """

    id: str
    lane: str
    priority: int
    payload: str
    is_limited: bool = False

    @property
    def origin(self) -> str:
        """The id of the job that this one does once more, after that was given up; its own where it does none."""
        return self.id.partition(ONCE_MORE)[0]

    def once_more(self, number: int) -> "Job":
        """This job, given up before, as a job of its own: the old one is done, for ever."""
        return Job(f"{self.origin}{ONCE_MORE}{number}", self.lane, self.priority, self.payload)
