"""The chat agent: its instructions and its tools."""

import pydantic_ai
from opentelemetry.trace import TracerProvider
from pydantic_ai import Agent, RunContext
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.usage import UsageLimits

from core.messages import ChatKind
from services.chat.tools import TurnContext, equip

LIMITS = UsageLimits(request_limit=8, tool_calls_limit=12)
"""Limits of one turn: requests of the tool loop, and tool calls."""

CHARACTER = """\
You are Understudy, a helpful assistant in a chat. Answer in the language of the user's message, to the point, and \
say so when you do not know. You may use Markdown: bold, italics, lists, code, quotes, short tables. Chat messages \
are read on a phone, so prefer short paragraphs."""

GROUP = """\
This is a group chat{title}. Each message begins with the name of who wrote it; answer the last one and address its \
writer where it helps. Do not begin your answer with a name."""

PRIVATE = "This is a private chat with {name}."


class AgentFactory:
    """Creates the agent; each turn brings its model.

    Args:
        spans: receives the library's spans, without message texts; None disables them.
    """

    def __init__(self, spans: TracerProvider | None = None) -> None:
        # The library would print a banner at its first run, in the middle of a console chat.
        pydantic_ai.BANNER_ENABLED = False
        self._agent = _agent()
        if spans is not None:
            self._agent.instrument = InstrumentationSettings(
                tracer_provider=spans, include_content=False, include_model_request_parameters=False
            )

    @property
    def agent(self) -> Agent[TurnContext, str]:
        """The agent. It is stateless between runs, so all turns share one."""
        return self._agent


def _agent() -> Agent[TurnContext, str]:
    # `instructions` are evaluated for each turn; a `system_prompt` would freeze the date into the history.
    agent = Agent(deps_type=TurnContext, instructions=CHARACTER, retries=2)
    agent.instructions(_circumstances)
    equip(agent)
    return agent


async def _circumstances(context: RunContext[TurnContext]) -> str:
    # A coroutine although it awaits nothing: the library runs plain functions in a thread.
    turn = context.deps
    if turn.chat_kind is ChatKind.GROUP:
        where = GROUP.format(title=f' called "{turn.chat_title}"' if turn.chat_title else "")
    else:
        where = PRIVATE.format(name=turn.user_name)
    lines = [f"Today is {turn.clock.now():%A, %Y-%m-%d} (UTC).", where]
    if turn.language:
        lines.append(f"The user's language setting is {turn.language}.")
    return "\n".join(lines)
