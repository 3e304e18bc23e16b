"""What the jobs of the inbox are: an update that came in, a turn to be answered again, or a message turned away."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from core.messages import ChatKind, Speaker
from services.inbox.job import LARGEST_PRIORITY, Job


class UpdateArrived(BaseModel):
    """An update to be handled."""

    kind: Literal["update"] = "update"
    update: dict[str, Any]  # Any: as Telegram sent it
    is_for_bot: bool = True
    """Whether it is to be answered, and not only what people in a moderated group say to each other."""
    is_admitted: bool = True
    """Whether the bot talks to its sender."""


class UpdateRejected(BaseModel):
    """An update that is not handled: its sender is told why."""

    kind: Literal["turned_away"] = "turned_away"
    update: dict[str, Any]  # Any: as above
    reason: Literal["queue-full", "not-allowed"]


class RegenerateTurn(BaseModel):
    """A turn to be answered again, since somebody pressed a button for that."""

    kind: Literal["again"] = "again"
    turn: int
    speaker: Speaker
    chat_kind: ChatKind
    chat_title: str | None = None
    reply_to: int | None = None
    provider: str | None = None
    only_latest: bool
    """Whether it is done only if the turn is still the latest of its conversation."""


class JobSink(Protocol):
    """Stores jobs; the inbox."""

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        """Stores jobs and returns those that were refused because their lane is full."""
        ...


Payload = UpdateArrived | UpdateRejected | RegenerateTurn
_PAYLOAD: TypeAdapter[Payload] = TypeAdapter(
    Annotated[Payload, Field(discriminator="kind")],
    # An error that quotes its input would bring what people wrote into the log.
    config=ConfigDict(hide_input_in_errors=True),
)


def parse_payload(job: Job) -> Payload:
    """What a job is.

    Raises:
        ValidationError: it is of another version of the bot.
    """
    return _PAYLOAD.validate_python(json.loads(job.payload))


def create_job(bot_id: int, update_id: int, lane: str | None, payload: Payload, *, is_limited: bool = False) -> Job:
    """The job of an update.

    Args:
        bot_id: whose update.
        update_id: its number, which is its place within the lane too.
        lane: behind what it waits; None: behind nothing.
        payload: what is to be done.
        is_limited: whether it is turned away when too many wait in its lane.
    """
    return Job(
        id=f"tg-{bot_id}-{update_id:012d}",
        lane=lane or f"now:{update_id}",
        priority=update_id % (LARGEST_PRIORITY - 1) + 1,
        # Not Pydantic's own JSON, which refuses the half characters that Telegram may cut a text at.
        payload=json.dumps(payload.model_dump(), separators=(",", ":")),
        is_limited=is_limited,
    )
