"""McpTools in a turn: permissions, idempotent acts of repeated jobs, and the tools that a chat is offered."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest

from core.config.tool_servers import ToolServer
from core.db.database import Database
from core.messages import ConversationKey, Surface
from services.chat.media.file_tools import DocumentTools, picture_tools
from services.chat.store.files import DocumentStore
from services.files.sandbox import Sandbox
from services.mcp.calls import CallStatus, Decision, ToolCalls, TooManyCalls
from services.mcp.servers import ServerTool
from services.mcp.tools import McpTools, describe_call, model_name
from services.schedule.schedules import Schedules
from services.schedule.tools import ScheduleTools
from services.web import PageReader, WebTools
from tests.support.chat_harness import ANN, BOB, PRIVATE, chat_harness, message, sent_messages
from tests.support.clock import ManualClock
from tests.support.fake_llm.server import Act, Behaviour, Exchange, LLMServer, answer, status, tool_call
from tests.support.llm_harness import provider

HOME = ToolServer("home", "program")
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"room": {"type": "string"}}}
LIGHT = ServerTool(HOME, "light.on", "Switch a light on.", SCHEMA, is_acting=True)
STATE = ServerTool(HOME, "state", "Read the state.", SCHEMA, is_acting=False)
FAR = ServerTool(ToolServer("far", url="https://far.example/mcp"), "look", "Look.", SCHEMA, is_acting=False)
KITCHEN = {"room": "kitchen"}


class Servers:
    """Connected servers that record each call."""

    def __init__(self) -> None:
        self.offered = [LIGHT, STATE, FAR]
        self.calls: list[tuple[str, str, dict[str, Any]]] = []
        self.waited_for: list[str] = []
        self.error: Exception | None = None

    def tools(self) -> list[ServerTool]:
        return self.offered

    async def wait_for(self, server: str) -> None:
        self.waited_for.append(server)

    async def call(self, server: str, tool: str, arguments: dict[str, Any]) -> str:
        self.calls.append((server, tool, arguments))
        if self.error is not None:
            raise self.error
        return "done"


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def calls(file: Database, clock: ManualClock) -> ToolCalls:
    return ToolCalls(file, clock)


@pytest.fixture
def tools(servers: Servers, calls: ToolCalls) -> McpTools:
    return McpTools(servers, calls)


def results(server: LLMServer) -> list[str]:
    return [text for role, text in sent_messages(server.requests[-1]) if role == "tool"]


async def test_names_for_models_are_admitted_by_every_provider() -> None:
    long = ServerTool(HOME, "x" * 200, "", SCHEMA, is_acting=False)
    assert model_name(LIGHT) == "home_light_on"
    assert len(model_name(long)) == 64


async def test_names_of_the_own_tools_are_never_taken(file: Database, first: LLMServer) -> None:
    """A tool `search` of a server `web` gets another name: a duplicate name would fail every turn."""
    own = [
        ScheduleTools(Schedules(file, ManualClock())).toolset(),
        WebTools(PageReader(Sandbox())).toolset(),
        DocumentTools(DocumentStore(file)).toolset(),
        picture_tools(),
    ]
    names = {name for toolset in own for name in toolset.tools}
    servers = Servers()
    servers.offered = [
        ServerTool(ToolServer(name.partition("_")[0], "program"), name.partition("_")[2], "", SCHEMA, is_acting=False)
        for name in sorted(names | {"current_time"})
    ]
    tools = McpTools(servers, ToolCalls(file, ManualClock()))
    async with chat_harness(file, provider("first", first.url), toolsets=[*own, tools]) as harness:
        first.script(tool_call("current_time_mcp", {}), answer("Done."))
        reply = await harness.say("What time is it?", origin="job-1")
    assert reply.text == "Done."
    assert servers.calls == [("current", "time", {})]
    sent = [tool["function"]["name"] for tool in first.requests[-1].json["tools"]]
    assert len(sent) == len(set(sent))


async def test_a_tool_that_only_reads_is_called_at_once(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers
) -> None:
    async with chat_harness(file, provider("first", first.url), toolsets=[tools]) as harness:
        first.script(tool_call("home_state", KITCHEN), answer("It is dark."))
        reply = await harness.say("Is it dark?", origin="job-1")
    assert servers.calls == [("home", "state", KITCHEN)]
    assert results(first) == ["done"]
    assert reply.text == "It is dark."


async def test_a_tool_that_acts_waits_for_its_user(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers, calls: ToolCalls
) -> None:
    """Nothing is done before; the same call again asks once; the answer goes on with the result."""
    async with chat_harness(file, provider("first", first.url), toolsets=[tools]) as harness:
        first.script(tool_call("home_light_on", KITCHEN), tool_call("home_light_on", KITCHEN), answer("May I?"))
        await harness.say("Light!", origin="job-1")
        assert servers.calls == []
        assert all("Not carried out yet" in result for result in results(first))
        (call,) = await calls.asked("job-1")
        assert describe_call(call) == 'home: light.on {"room": "kitchen"}'
        assert [asked.id for asked in await tools.asked("job-1")] == [call.id]

        assert await calls.decide(call, Decision.ONCE)
        assert not await calls.decide(call, Decision.DENY), "a decision is made once"
        decided = await calls.find(call.id)
        assert decided is not None
        result = await tools.carry_out(decided)
        first.script(answer("The light is on."))
        prelude = tools.as_messages(decided, result)
        reply = await harness.say("I allow it.", origin="job-2", prelude=prelude)
        assert reply.text == "The light is on."
        assert results(first)[-1] == "done"
        roles = [role for role, _ in sent_messages(first.requests[-1])]
        assert roles[-3:] == ["user", "assistant", "tool"]
        # The result stays in the conversation.
        await harness.say("Thanks")
        assert "done" in results(first)
    assert servers.calls == [("home", "light.on", KITCHEN)]


async def test_a_question_shows_both_ends_of_long_arguments(calls: ToolCalls) -> None:
    """Characters that change the direction of the line are left out."""
    long = {"command": f"echo {'a' * 3000}; rm -rf /", "note": "\u202eevil"}
    call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "run\nit", long, CallStatus.ASKED)
    shown = describe_call(call)
    assert shown.startswith('home: run it {"command": "echo aaa')
    assert "; rm -rf /" in shown
    assert "\u202e" not in shown
    assert len(shown) < 800
    assert re.search(r"\[…2\d{3}…\]", shown)


async def test_a_denied_call_is_not_carried_out(servers: Servers, tools: McpTools, calls: ToolCalls) -> None:
    call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.ASKED)
    assert await calls.decide(call, Decision.DENY)
    decided = await calls.find(call.id)
    assert decided is not None
    assert "did not allow" in await tools.carry_out(decided)
    assert servers.calls == []


async def test_always_is_for_one_user_and_one_tool(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers, calls: ToolCalls
) -> None:
    call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.ASKED)
    await calls.decide(call, Decision.ALWAYS)
    granted = [
        await calls.is_granted(Surface.TELEGRAM, user, "home", tool)
        for user, tool in ((ANN.user_id, "light.on"), (BOB.user_id, "light.on"), (ANN.user_id, "light.off"))
    ]
    assert granted == [True, False, False]
    async with chat_harness(file, provider("first", first.url), toolsets=[tools]) as harness:
        first.script(tool_call("home_light_on", {"room": "hall"}), answer("It is on."))
        await harness.say("Light!", origin="job-2")
        assert servers.calls == [("home", "light.on", {"room": "hall"})]
        # A job that is repeated after a crash: the model asks for the same, and gets the result of the first run.
        done, _ = await calls.open("job-3", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.BEGUN)
        await calls.finish(done.id, "done before the crash")
        first.script(tool_call("home_light_on", KITCHEN), answer("It is on."))
        await harness.say("Light!", origin="job-3")
        assert results(first)[-1] == "done before the crash"
    assert len(servers.calls) == 1


async def test_an_act_is_not_repeated_by_another_provider(
    file: Database, first: LLMServer, second: LLMServer, tools: McpTools, servers: Servers, calls: ToolCalls
) -> None:
    """The provider fails after the act; the next one is given its result."""
    call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.ASKED)
    await calls.decide(call, Decision.ALWAYS)
    one, two = provider("first", first.url, retries=0), provider("second", second.url)
    async with chat_harness(file, one, two, toolsets=[tools]) as harness:
        first.script(tool_call("home_light_on", KITCHEN), status(503))
        second.script(tool_call("home_light_on", KITCHEN), answer("On."))
        assert (await harness.say("Light!", origin="job-2")).text == "On."
    assert len(servers.calls) == 1
    assert results(second) == ["done", "done"]


async def test_a_retry_repeats_no_act(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers, calls: ToolCalls
) -> None:
    """The model asks for the same call and gets its result, also in a Retry of a Retry."""
    call, _ = await calls.open("job-0", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.ASKED)
    await calls.decide(call, Decision.ALWAYS)
    async with chat_harness(file, provider("first", first.url), toolsets=[tools]) as harness:
        first.script(tool_call("home_light_on", KITCHEN), answer("On."))
        reply = await harness.say("Light!", origin="job-1")
        for job in ("job-2", "job-3"):
            assert reply.turn_id is not None
            first.script(tool_call("home_light_on", KITCHEN), answer(f"On, {job}."))
            turn = await harness.stores.turns.turn(reply.turn_id)
            reply = await harness.say(message(""), origin=job, retry_of=turn)
            assert reply.text == f"On, {job}."
            assert results(first)[-1] == "done"
    assert servers.calls == [("home", "light.on", KITCHEN)]


async def test_a_retry_asks_for_the_same_permission_once(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers, calls: ToolCalls, clock: ManualClock
) -> None:
    """A question that is stale by then is open again; a denial stays one."""
    one = provider("first", first.url)
    async with chat_harness(file, one, toolsets=[tools], find_asked=tools.asked) as harness:
        first.script(tool_call("home_light_on", KITCHEN), answer("May I?"))
        reply = await harness.say("Light!", origin="job-1")
        (asked,) = reply.asked_calls
        clock.shift(timedelta(days=2).total_seconds())
        assert reply.turn_id is not None
        turn = await harness.stores.turns.turn(reply.turn_id)
        first.script(tool_call("home_light_on", KITCHEN), answer("May I now?"))
        again = await harness.say(message(""), origin="job-2", retry_of=turn)
        assert again.asked_calls == (asked,)
        call = await calls.find(asked.id)
        assert call is not None
        assert await calls.decide(call, Decision.DENY)
        first.script(tool_call("home_light_on", KITCHEN), answer("I may not."))
        await harness.say(message(""), origin="job-3", retry_of=turn)
        assert "did not allow" in results(first)[-1]
    assert servers.calls == []


@pytest.mark.parametrize("ending", [status(503), answer("It was dark.")])
async def test_a_retry_after_a_permission_has_the_result(
    file: Database, first: LLMServer, tools: McpTools, calls: ToolCalls, ending: Behaviour
) -> None:
    """The result is kept also where no provider answered after the call."""
    call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.ASKED)
    async with chat_harness(file, provider("first", first.url, retries=0), toolsets=[tools]) as harness:
        first.default = ending
        prelude = tools.as_messages(call, "It is on now.")
        reply = await harness.say("I allow it.", origin="job-2", prelude=prelude)
        assert reply.turn_id is not None
        first.default = answer("The light is on.")
        turn = await harness.stores.turns.turn(reply.turn_id)
        reply = await harness.say(message(""), origin="job-3", retry_of=turn)
    assert reply.text == "The light is on."
    roles = [role for role, _ in sent_messages(first.requests[-1])]
    assert roles[-3:] == ["user", "assistant", "tool"]
    assert results(first) == ["It is on now."]


async def test_a_call_that_a_crash_cut_off_is_unknown(
    servers: Servers, tools: McpTools, calls: ToolCalls, clock: ManualClock
) -> None:
    call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.ASKED)
    await calls.decide(call, Decision.ONCE)
    decided = await calls.find(call.id)
    assert decided is not None
    servers.error = KeyboardInterrupt()  # the process ends in the call
    with pytest.raises(KeyboardInterrupt):
        await tools.carry_out(decided)
    servers.error = None
    again = await calls.find(call.id)
    assert again is not None
    assert "unknown whether this call was carried out" in await tools.carry_out(again)
    assert len(servers.calls) == 1
    del clock


async def test_a_permission_is_stale_after_a_day(calls: ToolCalls, clock: ManualClock) -> None:
    call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "light.on", KITCHEN, CallStatus.ASKED)
    clock.shift(timedelta(days=1).total_seconds() + 1)
    assert not await calls.decide(call, Decision.ALWAYS)
    assert not await calls.is_granted(Surface.TELEGRAM, ANN.user_id, "home", "light.on")
    clock.shift(timedelta(days=7).total_seconds())
    await calls.purge()
    assert await calls.find(call.id) is None


async def test_limit_holds_for_calls_that_are_made_at_one_instant(database: Database, clock: ManualClock) -> None:
    """A model calls several tools at once; a repeated job finds its calls beyond the limit too."""
    calls = ToolCalls(database, clock)

    async def ask(room: int) -> int:
        arguments = {"room": room}
        call, _ = await calls.open("job-1", PRIVATE, ANN.user_id, "home", "light.on", arguments, CallStatus.ASKED)
        return call.id

    asked = await asyncio.gather(*map(ask, range(6)), return_exceptions=True)
    assert [type(each) for each in asked].count(TooManyCalls) == 3
    room = next(room for room, each in enumerate(asked) if isinstance(each, int))
    assert await ask(room) == asked[room]


async def test_an_answer_asks_for_three_calls_at_most(
    file: Database, first: LLMServer, tools: McpTools, calls: ToolCalls
) -> None:
    async with chat_harness(file, provider("first", first.url), toolsets=[tools]) as harness:
        first.script(*(tool_call("home_light_on", {"room": str(n)}) for n in range(4)), answer("May I?"))
        await harness.say("Lights!", origin="job-1")
    assert len(await calls.asked("job-1")) == 3
    assert "enough calls" in results(first)[-1]


async def test_acting_tools_need_buttons_and_local_chats_no_far_servers(
    file: Database, first: LLMServer, tools: McpTools
) -> None:
    def offered() -> set[str]:
        return {tool["function"]["name"] for tool in first.requests[-1].json["tools"]} & {
            "home_light_on", "home_state", "far_look",
        }  # fmt: skip

    local = provider("first", first.url, remote=False)
    async with chat_harness(file, local, toolsets=[tools]) as harness:
        await harness.say(message("Hello", key=ConversationKey(Surface.CONSOLE, 1)))
        assert offered() == {"home_state", "far_look"}
        await harness.say(message("Hello"), origin="job-1")
        assert offered() == {"home_light_on", "home_state", "far_look"}
    async with chat_harness(file, local, toolsets=[tools], asks_consent=True) as harness:
        await harness.say(message("Hello"), origin="job-2")
        assert offered() == {"home_light_on", "home_state"}


async def test_a_call_reaches_the_tool_that_was_offered(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers
) -> None:
    """Another tool under the same name may belong to another network, or act."""
    far = ServerTool(ToolServer("home_hall", url="https://far.example/mcp"), "state", "Look.", SCHEMA, is_acting=False)
    acting = ServerTool(HOME, "hall.state", "Reset the state.", SCHEMA, is_acting=True)
    near = ServerTool(HOME, "hall_state", "Read the state.", SCHEMA, is_acting=False)
    servers.offered = [far, acting, near]
    local = provider("first", first.url, remote=False)
    async with chat_harness(file, local, toolsets=[tools], asks_consent=True) as harness:
        first.script(tool_call("home_hall_state", KITCHEN), answer("It is dark."))
        await harness.say(message("Is it dark?", key=ConversationKey(Surface.CONSOLE, 1)))
    assert servers.calls == [("home", "hall_state", KITCHEN)]


async def test_a_call_reaches_no_tool_that_took_the_name_meanwhile(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers
) -> None:
    """The server of the offered tool goes while the model answers, and another one has a tool of that name."""
    servers.offered = [ServerTool(HOME, "hall_state", "Read the state.", SCHEMA, is_acting=False)]

    async def swap(exchange: Exchange) -> None:
        reset = ServerTool(ToolServer("home_hall", "program"), "state", "Reset it.", SCHEMA, is_acting=False)
        servers.offered = [reset, STATE]
        await tool_call("home_hall_state", KITCHEN).play(exchange)

    async with chat_harness(file, provider("first", first.url), toolsets=[tools]) as harness:
        first.script(Act(swap), answer("It is gone."))
        reply = await harness.say("Is it dark?", origin="job-1")
    assert (reply.text, servers.calls) == ("It is gone.", [])
    assert [tool["function"]["name"] for tool in first.requests[-1].json["tools"]][-1] == "home_state"


async def test_a_server_that_is_gone_fails_no_turn(
    file: Database, first: LLMServer, tools: McpTools, servers: Servers
) -> None:
    async with chat_harness(file, provider("first", first.url), toolsets=[tools]) as harness:
        first.script(tool_call("home_state", KITCHEN), answer("Later, then."))
        reply, task = harness.begin("Is it dark?", origin="job-1")
        servers.offered = [LIGHT]
        await task
    assert reply.text
