"""First contact and quotations from other chats: the question to the judge, and the possible sanctions."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.moderation.case import Stage
from services.moderation.domain.message import Author, AuthorKind, GroupMessage
from services.moderation.domain.verdict import About, Category, Evidence, Judged, Verdict
from services.moderation.judging.judge import locate_evidence
from services.moderation.judging.prompt import collect_parts
from services.moderation.text.normalise import normalise
from tests.support.group_messages import message
from tests.support.moderation_harness import NEWCOMER, ModerationHarness

QUOTE = "The best casino: free spins for everybody, claim now"


def named(name: str, text: str = "hi", number: int = 1) -> GroupMessage:
    return replace(message(text, number=number), author=Author(NEWCOMER, AuthorKind.USER, name))


@pytest.mark.parametrize("name", ["Earn with @boss", "t.me/casino", "Easy work 500$", "Look at my profile, boys"])
async def test_name_of_a_newcomer_is_judged_once(harness: ModerationHarness, name: str) -> None:
    for number in (1, 2, 3):
        await harness.pipeline.handle(named(name, number=number), harness.settings)
    assert harness.judge.request_count == 1


@pytest.mark.parametrize(
    "name", ["", "\u200b", "Ann", "Ann Lee", "Жан-Пётр О'Нил", "❤️ Аня 🇺🇦", "User 6001", "A. B. Smith"]
)
async def test_greeting_under_an_ordinary_name_is_not_judged(harness: ModerationHarness, name: str) -> None:
    await harness.pipeline.handle(named(name), harness.settings)
    assert harness.judge.request_count == 0


async def test_name_with_the_words_of_adverts_is_judged(harness: ModerationHarness) -> None:
    harness.judge.fixed_score = 60
    await harness.pipeline.handle(named("Casino Bonus"), harness.settings)
    assert harness.judge.request_count == 1


async def test_quotation_from_another_chat_is_judged_and_becomes_a_card(harness: ModerationHarness) -> None:
    said = message("cool", author=NEWCOMER, quoted=QUOTE, quotes_outside=True)
    harness.judge.default = Judged(
        Verdict(category=Category.GAMBLING, confidence=99, about=About.QUOTED, evidence="casino"),
        Evidence.QUOTED,
        "a",
        "m",
    )
    outcome = await harness.pipeline.handle(said, harness.settings)
    assert (outcome.stage, outcome.removed) == (Stage.FOUND, False)
    assert harness.group.action_names == []
    assert len(harness.group.cards) == 1


async def test_quotation_of_the_group_itself_asks_no_judge(harness: ModerationHarness) -> None:
    await harness.pipeline.handle(message("cool", author=NEWCOMER, quoted=QUOTE), harness.settings)
    assert harness.judge.request_count == 0


@pytest.mark.parametrize("about", list(About))
@pytest.mark.parametrize("evidence", ["casino: free spins", None])
def test_evidence_in_a_quotation_from_another_chat(about: About, evidence: str | None) -> None:
    said = message("cool", quoted=QUOTE, quotes_outside=True)
    verdict = Verdict(category=Category.GAMBLING, confidence=99, about=about, evidence=evidence)
    found = locate_evidence(verdict, said, normalise(said.text))
    is_known = evidence is not None or about is About.QUOTED
    assert found is (Evidence.QUOTED if is_known else Evidence.MISSING)
    assert locate_evidence(verdict, replace(said, quotes_outside=False), normalise("cool")) is Evidence.MISSING


def test_judge_reads_an_advert_behind_a_long_quotation_and_text() -> None:
    harmless = "harmless words " * 400
    said = message(harmless + "Earn $500 a day", quoted=harmless + "Casino")
    parts = {part.name: part.text for part in collect_parts(said, normalise(said.text))}
    assert "Earn $500 a day" in parts["the author's own text"]
    assert "Casino" in parts["quoted, somebody else's words"]


async def test_plain_talk_of_a_newcomer_is_judged_five_times(harness: ModerationHarness) -> None:
    """In the first week of a group everyone is a newcomer, and most of what they say is plain talk."""
    for number in range(1, 7):
        await harness.pipeline.handle(
            message(f"The library opens at ten, number {number}", number=number), harness.settings
        )
    assert harness.judge.request_count == 5
    harness.judge.fixed_score = 40
    later = harness.clock.now() + timedelta(minutes=1)
    said = message("The library opens at eleven today", number=11, sent_at=later)
    await harness.pipeline.handle(said, harness.settings)
    await harness.pipeline.handle(
        message("Look at t.me/library_club everyone", number=12, sent_at=later), harness.settings
    )
    assert harness.judge.request_count == 7
