"""What the inbox keeps: a piece of work that survives the process."""

from dataclasses import dataclass

LARGEST_PRIORITY = 2**31 - 1
"""The queue orders by a 32-bit number."""


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
