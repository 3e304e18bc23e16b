"""Pictures of newcomers: opt-in, on a budget of their own, by models with vision, and deletion at most."""

from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from core.errors import AllProvidersFailed, ContentRefused, NoUsableAnswer, ProviderError
from core.messages import Attachment
from core.redis.client import open_redis
from services.llm.models.direct import Answer
from services.moderation.case import Stage
from services.moderation.domain.incident import Resolution
from services.moderation.domain.message import GroupMessage, MediaKind, PictureRef
from services.moderation.domain.settings import GroupSettings, Mode
from services.moderation.domain.verdict import Category, Judged, NoVerdictReason, Unjudged, Verdict
from services.moderation.judging.judge import Budget
from services.moderation.judging.picture_judge import PictureJudge
from services.moderation.judging.verdict_cache import VerdictCache
from tests.support.clock import ManualClock
from tests.support.fake_llm.server import LLMServer, tool_call
from tests.support.group_messages import message
from tests.support.llm_harness import bench, provider
from tests.support.moderation_harness import GROUP, NEWCOMER, ModerationHarness, judged

CASINO = Verdict(category=Category.GAMBLING, confidence=99, evidence="WIN 1000")
ADVERT = judged(Category.GAMBLING, 99)
CASINO_CALL = tool_call("final_result", {"category": "gambling", "confidence": 99})
FILE = Attachment(b"\xff\xd8\xff\xe0 picture", "image/jpeg")


def picture_message(unique: str = "u1", author: int = NEWCOMER, number: int = 1, text: str = "") -> GroupMessage:
    return message(
        text, author=author, number=number, media=(MediaKind.PHOTO,), pictures=(PictureRef(f"f-{unique}", unique),)
    )


class Models:
    """Answers every picture the same, or fails."""

    def __init__(self, answer: Verdict | ProviderError = CASINO) -> None:
        self.answer = answer
        self.seen: list[tuple[Attachment, ...]] = []
        self.local_only: list[bool] = []

    def create_moderation_model(self, context: str, *, local_only: bool = False, chat: str | None = None) -> "Models":
        self.local_only.append(local_only)
        return self

    async def ask(self, instructions: str, prompt: str, pictures: tuple[Attachment, ...] = ()) -> Answer[Verdict]:
        self.seen.append(pictures)
        if isinstance(self.answer, ProviderError):
            raise self.answer
        return Answer(self.answer, "b", "n", 900, 20)


class Files:
    """Telegram's files, of which some cannot be had."""

    def __init__(self) -> None:
        self.lost: set[str] = set()

    async def fetch(self, picture: PictureRef) -> Attachment | None:
        return None if picture.unique_id in self.lost else FILE


class Consent:
    """Consent to remote providers."""

    is_given = True

    async def is_allowed(self, settings: GroupSettings) -> bool:
        return self.is_given


class Case:
    """A judge of pictures with its parts."""

    def __init__(self, clock: ManualClock, models: Models | None = None) -> None:
        redis = open_redis(None)
        self.models, self.files, self.consent = models or Models(), Files(), Consent()
        cache, budget = VerdictCache(redis, "t", clock), Budget(redis, "t", clock, kind="pictures")
        self.judge = PictureJudge(self.models, lambda: "b/n", self.files, cache, budget, self.consent)

    async def judged(self, said: GroupMessage, limit: int = 40) -> Judged | Unjudged:
        return await self.judge.judge(said, GroupSettings(GROUP, mode=Mode.ENFORCE), limit)


async def test_equal_picture_is_judged_once_whatever_its_caption_and_author(clock: ManualClock) -> None:
    case = Case(clock)
    for author in range(5):
        found = await case.judged(picture_message(author=author, text=f"look {author}"))
        assert isinstance(found, Judged)
        assert found.verdict == CASINO
    assert case.models.seen == [(FILE,)]


async def test_budget_of_pictures_is_a_quarter_for_one_author_and_ends(clock: ManualClock) -> None:
    case = Case(clock, Models(Verdict(category=Category.OK, confidence=99)))
    found = [await case.judged(picture_message(f"a{number}", author=1), limit=8) for number in range(4)]
    assert [isinstance(each, Judged) for each in found] == [True, True, False, False]
    assert found[3] == Unjudged(NoVerdictReason.AUTHOR_BUDGET)
    found = [await case.judged(picture_message(f"b{number}", author=10 + number), limit=8) for number in range(8)]
    assert found[-1] == Unjudged(NoVerdictReason.BUDGET)
    assert len(case.models.seen) == 8


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (AllProvidersFailed(()), NoVerdictReason.OUTAGE),
        (NoUsableAnswer(()), NoVerdictReason.OUTAGE),
        (ContentRefused("a", "policy"), NoVerdictReason.REFUSED),
    ],
)
async def test_failure_gives_no_verdict(clock: ManualClock, failure: ProviderError, reason: NoVerdictReason) -> None:
    found = await Case(clock, Models(failure)).judged(picture_message())
    assert isinstance(found, Unjudged)
    assert found.reason is reason


async def test_lost_file_costs_no_request_and_no_consent_keeps_it_local(clock: ManualClock) -> None:
    case = Case(clock)
    case.files.lost.add("u1")
    assert await case.judged(picture_message("u1")) == Unjudged(NoVerdictReason.REJECTED)
    assert case.models.seen == []
    case.consent.is_given = False
    await case.judged(picture_message("u2"))
    assert case.models.local_only == [True]


class TestModels:
    pytestmark = pytest.mark.integration

    async def test_model_without_vision_is_never_asked_about_a_picture(self) -> None:
        async with LLMServer() as blind, LLMServer() as seeing:
            seeing.script(CASINO_CALL)
            providers = [provider("a", blind.url), provider("b", seeing.url, families={"b-model": "gpt-4o"})]
            async with bench(open_redis(None), providers) as replica:
                answer = await replica.factory.create_moderation_model("moderation").ask("Judge.", "Both.", (FILE,))
                assert (answer.provider, answer.value.category) == ("b", Category.GAMBLING)
            assert blind.requests == []

    async def test_pictures_that_no_model_sees_are_no_outage(self) -> None:
        async with LLMServer() as server, bench(open_redis(None), [provider("a", server.url)]) as replica:
            model = replica.factory.create_moderation_model("moderation")
            with capture_logs() as logs, pytest.raises(NoUsableAnswer):
                await model.ask("Judge.", "Both.", (FILE,))
            assert (server.requests, [line["event"] for line in logs]) == ([], [])


@pytest.fixture
async def opted_in(harness: ModerationHarness) -> ModerationHarness:
    await harness.newcomers.store.change(GROUP, pictures=30)
    harness.judge.pictures.default = ADVERT
    return harness


class TestPipeline:
    async def test_advert_in_a_newcomer_s_picture_is_deleted_and_no_more(self, opted_in: ModerationHarness) -> None:
        outcome = await opted_in.pipeline.handle(picture_message(), replace(opted_in.settings, ban_allowed=True))
        assert outcome.stage is Stage.FOUND
        assert opted_in.group.action_names == ["delete"]
        assert (opted_in.judge.pictures.asked, opted_in.judge.pictures.limits) == ([("u1",)], [30])

    async def test_pictures_are_not_judged_unless_the_group_wants_it(self, harness: ModerationHarness) -> None:
        harness.judge.pictures.default = ADVERT
        outcome = await harness.pipeline.handle(picture_message(), harness.settings)
        assert (outcome.stage, harness.judge.pictures.asked) == (Stage.PASSED, [])

    async def test_established_member_s_picture_is_not_judged(self, opted_in: ModerationHarness) -> None:
        await opted_in.newcomers.trust(GROUP, NEWCOMER)
        await opted_in.pipeline.handle(picture_message(), opted_in.settings)
        assert opted_in.judge.pictures.asked == []

    async def test_picture_below_the_threshold_becomes_a_card_and_a_harsh_one_passes(
        self, opted_in: ModerationHarness
    ) -> None:
        opted_in.judge.pictures.default = judged(Category.ADULT, 60)
        await opted_in.pipeline.handle(picture_message("u1", number=1), opted_in.settings)
        opted_in.judge.pictures.default = judged(Category.TOXIC, 99)
        await opted_in.pipeline.handle(picture_message("u2", number=2), opted_in.settings)
        assert (opted_in.group.action_names, len(opted_in.group.cards)) == ([], 1)

    async def test_picture_passes_without_a_verdict_and_nothing_waits(self, opted_in: ModerationHarness) -> None:
        opted_in.judge.pictures.default = Unjudged(NoVerdictReason.OUTAGE)
        outcome = await opted_in.pipeline.handle(picture_message(), opted_in.settings)
        assert (outcome.stage, opted_in.group.alerts) == (Stage.PASSED, [])

    async def test_undone_picture_is_known_from_then_on(self, opted_in: ModerationHarness) -> None:
        outcome = await opted_in.pipeline.handle(picture_message(number=1), opted_in.settings)
        incident = await opted_in.incidents.get(outcome.incident or 0)
        assert incident is not None
        await opted_in.actions.resolve(incident, Resolution.UNDO, opted_in.settings, "Ann")
        again = await opted_in.pipeline.handle(picture_message(number=2, author=NEWCOMER + 1), opted_in.settings)
        assert (again.stage, len(opted_in.judge.pictures.asked)) == (Stage.PASSED, 1)
        assert opted_in.judge.learned == []
