"""Schedules in a database, their limits, the dispatcher over two replicas, and the tools of the model."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.db.database import Database
from core.errors import ScheduleRefused
from core.messages import ChatKind, ConversationKey, Speaker, Surface, user_ref
from services.inbox.job import Job
from services.schedule.dispatcher import DispatchTiming, ScheduleDispatcher
from services.schedule.schedules import Schedule, ScheduleLimits, ScheduleOwner, Schedules
from services.schedule.tools import ScheduleTools
from tests.support.chat_harness import ANN, BOB, PRIVATE, chat_harness, message, sent_messages
from tests.support.clock import ManualClock
from tests.support.fake_llm.server import LLMServer, answer, tool_call
from tests.support.llm_harness import provider
from tests.support.worker_harness import JobList

pytestmark = pytest.mark.integration

OWNER = ScheduleOwner(PRIVATE, ANN, ChatKind.PRIVATE)
NOW = datetime.fromtimestamp(ManualClock().time(), UTC)
"""2027-01-15 08:00 UTC, a Friday."""


@pytest.fixture
def schedules(file: Database, clock: ManualClock) -> Schedules:
    return Schedules(file, clock, limits=ScheduleLimits(per_user=3))


def to_job(schedule: Schedule) -> Job:
    return Job(f"{schedule.id}@{schedule.next_at.timestamp():.0f}", str(schedule.owner.key), 1, schedule.text)


class Deduplicating(JobList):
    """Keeps a job once by its id, as the inbox does."""

    async def put(self, jobs: Any) -> list[Job]:
        known = {job.id for job in self.jobs}
        return await super().put([job for job in jobs if job.id not in known])


async def test_add_uses_the_zone_of_the_user(schedules: Schedules) -> None:
    await schedules.set_zone(OWNER.user_ref, "Europe/Berlin")
    made = await schedules.add(OWNER, "tomorrow 09:00 call Bob", is_prompt=False)
    assert made.next_at == NOW + timedelta(days=1)
    assert schedules.describe_time(made.next_at, made.zone) == "2027-01-16 09:00 CET"
    other = ScheduleOwner(PRIVATE, BOB, ChatKind.PRIVATE)
    assert (await schedules.add(other, "tomorrow 09:00 call Ann", is_prompt=False)).next_at.hour == 9
    with pytest.raises(ScheduleRefused, match="schedule-unknown-zone"):
        await schedules.set_zone(OWNER.user_ref, "Europe/Nowhere")
    assert await schedules.zone_name(OWNER.user_ref) == "Europe/Berlin"


@pytest.mark.parametrize(
    ("request_text", "key"),
    [
        ("tomorrow 09:00", "schedule-no-text"),
        ("tomorrow 09:00 " + "x" * 1001, "schedule-too-long"),
        ("08:00 call", "schedule-too-soon"),
        ("2099-01-01 09:00 call", "schedule-too-far"),
    ],
)
async def test_add_refuses(file: Database, clock: ManualClock, request_text: str, key: str) -> None:
    clock.shift(-30)  # half a minute before eight
    with pytest.raises(ScheduleRefused, match=key):
        await Schedules(file, clock).add(OWNER, request_text, is_prompt=False)


async def test_add_is_limited_per_user_and_idempotent(schedules: Schedules) -> None:
    made = [await schedules.add(OWNER, f"in {n} hours call", is_prompt=False, origin=f"job-{n}") for n in (1, 2, 3)]
    with pytest.raises(ScheduleRefused, match="schedule-too-many"):
        await schedules.add(OWNER, "in 4 hours call", is_prompt=False, origin="job-4")
    # A repeated job finds its entry, also at the limit.
    assert await schedules.add(OWNER, "in 3 hours call", is_prompt=False, origin="job-3") == made[2]
    await schedules.add(ScheduleOwner(PRIVATE, BOB, ChatKind.PRIVATE), "in 4 hours call", is_prompt=False)


async def test_limit_holds_for_entries_that_are_added_at_one_instant(database: Database, clock: ManualClock) -> None:
    schedules = Schedules(database, clock, limits=ScheduleLimits(per_user=3))
    adding = [schedules.add(OWNER, f"in {n} hours call", is_prompt=False) for n in range(1, 11)]
    results = await asyncio.gather(*adding, return_exceptions=True)
    assert [type(each) for each in results if isinstance(each, Exception)] == [ScheduleRefused] * 7
    assert len(await schedules.of_user(ANN.user_id, PRIVATE)) == 3


async def test_only_the_owner_changes_an_entry(schedules: Schedules) -> None:
    made = await schedules.add(OWNER, "in 1 hour call", is_prompt=False)
    assert not await schedules.cancel(made.id, BOB.user_id)
    assert not await schedules.set_paused(made.id, BOB.user_id, is_paused=True)
    assert [each.id for each in await schedules.of_user(ANN.user_id, PRIVATE)] == [made.id]
    assert await schedules.of_user(ANN.user_id, ConversationKey(Surface.TELEGRAM, -100)) == []
    assert await schedules.cancel(made.id, ANN.user_id)
    assert await schedules.of_user(ANN.user_id, PRIVATE) == []


async def test_two_replicas_enqueue_a_due_entry_once(file: Database, clock: ManualClock) -> None:
    inbox = Deduplicating()
    replicas = [Schedules(file, clock), Schedules(file, clock)]
    dispatchers = [ScheduleDispatcher(each, inbox, clock, to_job) for each in replicas]
    await replicas[0].add(OWNER, "in 5 minutes once", is_prompt=False)
    await replicas[0].add(OWNER, "every day 08:05 daily", is_prompt=False)
    assert [await each.enqueue_due() for each in dispatchers] == [0, 0]
    clock.shift(300)
    # Both read before either has moved the entries on.
    stale = await replicas[1].due()
    assert await dispatchers[0].enqueue_due() == 2
    await inbox.put([to_job(each) for each in stale])
    for each in stale:
        await replicas[1].advance(each)
    assert await dispatchers[1].enqueue_due() == 0
    assert sorted(job.payload for job in inbox.jobs) == ["daily", "once"]
    remaining = await replicas[0].of_user(ANN.user_id, PRIVATE)
    assert [(each.text, each.next_at) for each in remaining] == [("daily", NOW + timedelta(days=1, minutes=5))]


async def test_a_process_that_dies_before_the_entries_move_on_loses_nothing(file: Database, clock: ManualClock) -> None:
    schedules, inbox = Schedules(file, clock), Deduplicating()
    await schedules.add(OWNER, "in 5 minutes call", is_prompt=False)
    clock.shift(300)
    await inbox.put([to_job(each) for each in await schedules.due()])
    assert await ScheduleDispatcher(schedules, inbox, clock, to_job).enqueue_due() == 1
    assert len(inbox.jobs) == 1


async def test_missed_times_of_a_recurring_entry_are_one(file: Database, clock: ManualClock) -> None:
    schedules, inbox = Schedules(file, clock), Deduplicating()
    await schedules.add(OWNER, "every day 09:00 call", is_prompt=False)
    clock.shift(3 * 86400 + 7200)
    dispatcher = ScheduleDispatcher(schedules, inbox, clock, to_job)
    assert [await dispatcher.enqueue_due(), await dispatcher.enqueue_due()] == [1, 0]
    assert (await schedules.next_at()) == datetime(2027, 1, 19, 9, tzinfo=UTC)


async def test_a_paused_entry_is_not_due_and_goes_on_later(file: Database, clock: ManualClock) -> None:
    schedules = Schedules(file, clock)
    daily = await schedules.add(OWNER, "every day 09:00 call", is_prompt=False)
    once = await schedules.add(OWNER, "at 09:00 call", is_prompt=False)
    for each in (daily, once):
        assert await schedules.set_paused(each.id, ANN.user_id, is_paused=True)
    clock.shift(2 * 3600)
    assert await schedules.due() == []
    assert await schedules.next_at() is None
    for each in (daily, once):
        await schedules.set_paused(each.id, ANN.user_id, is_paused=False)
    times = {each.id: each.next_at for each in await schedules.of_user(ANN.user_id, PRIVATE)}
    assert times == {daily.id: NOW + timedelta(hours=25), once.id: NOW + timedelta(hours=2, minutes=1)}


async def test_an_entry_of_a_user_without_access_is_left_out(file: Database, clock: ManualClock) -> None:
    schedules, inbox = Schedules(file, clock), JobList()
    await schedules.add(OWNER, "in 5 minutes call", is_prompt=False)
    clock.shift(300)
    dispatcher = ScheduleDispatcher(schedules, inbox, clock, to_job, lambda _: False, DispatchTiming(batch=1))
    assert await dispatcher.enqueue_due() == 1
    assert inbox.jobs == []
    assert await schedules.next_at() is None


async def test_tools_schedule_list_and_cancel(file: Database, first: LLMServer) -> None:
    """In the words of the user, in the time zone that the model was told."""
    clock = ManualClock()
    schedules = Schedules(file, clock)
    wish = {"when": "tomorrow 09:00", "text": "call Bob", "time_zone": "Europe/Berlin"}
    toolset = ScheduleTools(schedules).toolset()
    async with chat_harness(file, provider("first", first.url), clock=clock, toolsets=[toolset]) as harness:
        # The first time cannot be read; the model is told the forms and corrects itself.
        first.script(tool_call("schedule_message", {**wish, "when": "at dawn"}), tool_call("schedule_message", wish))
        await harness.say("Remind me tomorrow at nine to call Bob. I am in Berlin.", origin="job-1")
        results = [text for role, text in sent_messages(first.requests[2]) if role == "tool"]
        assert "`every day 09:00`" in results[0]
        (made,) = await schedules.of_user(ANN.user_id, PRIVATE)
        assert results[1] == f"Scheduled: number {made.id}, reminder at 2027-01-16 09:00 CET: call Bob."
        assert (made.next_at, made.is_prompt) == (NOW + timedelta(days=1), False)
        first.script(tool_call("list_schedules", {}), tool_call("cancel_schedule", {"number": made.id}), answer("Done"))
        await harness.say("Forget it.", origin="job-2")
        results = [text for role, text in sent_messages(first.requests[-1]) if role == "tool"]
        assert "call Bob" in results[-2]
        assert results[-1] == "Cancelled."
    assert await schedules.of_user(ANN.user_id, PRIVATE) == []


async def test_tools_are_offered_in_chats_only(file: Database, first: LLMServer) -> None:
    toolset = ScheduleTools(Schedules(file, ManualClock())).toolset()
    console = ConversationKey(Surface.CONSOLE, 1)
    async with chat_harness(file, provider("first", first.url), toolsets=[toolset]) as harness:
        for key in (PRIVATE, console):
            await harness.say(message("Hello", key=key))
    offered = [{tool["function"]["name"] for tool in request.json["tools"]} for request in first.requests]
    assert "schedule_message" in offered[0]
    assert "schedule_message" not in offered[1]


async def test_a_repeated_job_and_a_retry_schedule_once(file: Database, first: LLMServer) -> None:
    schedules = Schedules(file, ManualClock())
    wish = {"when": "in 2 hours", "text": "call"}
    toolset = ScheduleTools(schedules).toolset()
    async with chat_harness(file, provider("first", first.url), toolsets=[toolset]) as harness:
        first.script(tool_call("schedule_message", wish), tool_call("schedule_message", wish), answer("Done"))
        reply = await harness.say("Remind me", origin="job-1")
        assert reply.turn_id is not None
        first.script(tool_call("schedule_message", wish), answer("Done again"))
        turn = await harness.stores.turns.turn(reply.turn_id)
        reply = await harness.say(message(""), origin="job-2", retry_of=turn)
        assert reply.text == "Done again"
    assert len(await schedules.of_user(ANN.user_id, PRIVATE)) == 1
    assert await schedules.of_user(Speaker(99, "Eve").user_id, PRIVATE) == []
    assert await schedules.zone_name(user_ref(Surface.TELEGRAM, ANN.user_id)) == ""


async def test_the_text_of_a_tool_is_no_part_of_its_time(schedules: Schedules) -> None:
    made = await schedules.add(OWNER, "in 2 hours", text="30 minutes of yoga", is_prompt=False)
    assert (made.text, made.next_at - NOW) == ("30 minutes of yoga", timedelta(hours=2))
    with pytest.raises(ScheduleRefused, match="schedule-unreadable"):
        await schedules.add(OWNER, "tomorrow 09:00 sharp", text="call", is_prompt=False)
    with pytest.raises(ScheduleRefused, match="schedule-too-long"):
        await schedules.add(OWNER, "in 2 hours " + "x" * 100_000, is_prompt=False)
