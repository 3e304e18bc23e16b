"""UpdateIngest with the stores behind it in memory."""

from collections.abc import Sequence
from typing import Any

from bot.telegram.api.session import TelegramMetrics
from bot.telegram.ingress.classification import AccessList
from bot.telegram.ingress.ingest import Admission, AdmissionLimits, UpdateClassifier, UpdateIngest
from bot.telegram.jobs import UpdateRejected
from bot.telegram.worker import parse_payload
from core.errors import StorageError
from core.messages import ConversationKey, Surface
from services.inbox.album_parts import AlbumPart
from services.inbox.job import Job
from services.limits.party_limits import RateLimiter
from tests.support.clock import ManualClock
from tests.support.fake_telegram.chats import JsonObject, natural_entities
from tests.support.fake_telegram.messages import raw
from tests.support.fake_telegram.traffic import Traffic
from tests.support.stub_moderator import StubModerator

PRIVATE_LANE = str(ConversationKey(Surface.TELEGRAM, 7))
GROUP_LANE = str(ConversationKey(Surface.TELEGRAM, -100))
OWN_LANE = "now:1"
ADMIN = 1000


class JobStore:
    """A job sink that keeps jobs in memory and refuses limited jobs of the lanes in `full`."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.full: set[str] = set()
        self.broken = False
        self.buggy: set[str] = set()
        """Ids of jobs over which a bug is raised."""
        self.quarantined: list[tuple[str, str]] = []

    async def put(self, jobs: Sequence[Job]) -> list[Job]:
        if not self.buggy.isdisjoint(job.id for job in jobs):
            raise KeyError("a bug")
        if self.broken:
            raise StorageError("the database failed: full")
        refused = [job for job in jobs if job.is_limited and job.lane in self.full]
        self.jobs |= {job.id: job for job in jobs if job not in refused and job.id not in self.jobs}
        return refused

    async def quarantine(self, job: Job, reason: str) -> None:
        self.quarantined.append((job.id, reason))


class PartStore:
    """Album parts by message id."""

    def __init__(self) -> None:
        self.stored: dict[int, AlbumPart] = {}

    async def put(self, parts: Sequence[AlbumPart]) -> None:
        self.stored |= {part.message_id: part for part in parts}


class IngestHarness:
    """An UpdateIngest and the stores behind it."""

    def __init__(
        self,
        traffic: Traffic,
        clock: ManualClock,
        users: frozenset[int] = frozenset(),
        chats: frozenset[int] = frozenset(),
        messages: int = 0,
        metrics: TelegramMetrics | None = None,
    ) -> None:
        self.job_store, self.parts, self.moderator = JobStore(), PartStore(), StubModerator()
        access = AccessList(users=users, chats=chats)
        self.ingest = UpdateIngest(
            bot=traffic.bot,
            inbox=self.job_store,
            parts=self.parts,
            classifier=UpdateClassifier(traffic.bot, self.moderator, access, clock),
            admission=Admission(RateLimiter(None, "test"), clock, AdmissionLimits(messages, frozenset({ADMIN}))),
            metrics=metrics,
        )

    async def take(self, *contents: JsonObject) -> None:
        """Ingests a batch of updates, numbered from 1."""
        await self.ingest.take([{"update_id": number, **content} for number, content in enumerate(contents, 1)])

    @property
    def jobs(self) -> list[Job]:
        return list(self.job_store.jobs.values())

    @property
    def kinds(self) -> list[str]:
        """The kind of each job's payload, or the reason of a rejection."""
        payloads = [parse_payload(job) for job in self.jobs]
        return [each.reason if isinstance(each, UpdateRejected) else each.kind for each in payloads]


def text_message(text: str, **fields: object) -> dict[str, Any]:
    return raw(text, entities=natural_entities(text), **fields)


def part(number: int, caption: str | None = None, **fields: object) -> JsonObject:
    """A part of an album."""
    said = {"caption": caption, "caption_entities": natural_entities(caption)} if caption else {}
    photo = [{"file_id": "f", "file_unique_id": "u", "width": 1, "height": 1}]
    return {"message": raw(None, message_id=number, media_group_id="x", photo=photo, **said, **fields)}
