"""The chat agent and the tools of every chat."""

from collections.abc import Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pydantic_ai
import structlog
from opentelemetry.trace import TracerProvider
from pydantic_ai import Agent, ModelRetry, RunContext
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.toolsets import AbstractToolset

from core.errors import StorageError
from services.chat.prompts import CHARACTER, describe_turn
from services.chat.turn import TurnContext

log = structlog.get_logger()


async def current_time(context: RunContext[TurnContext], time_zone: str = "UTC") -> str:
    """Tell the current date and time.

    Args:
        context: the turn.
        time_zone: an IANA name such as Europe/Berlin.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ModelRetry(f"{time_zone!r} is not an IANA time zone; try one such as Europe/Berlin") from error
    return context.deps.clock.now().astimezone(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


async def remember(context: RunContext[TurnContext], note: str) -> str:
    """Keep a short note about this user for later conversations: a name, a preference, a fact they told.

    Args:
        context: the turn.
        note: one fact, in one sentence.
    """
    turn = context.deps
    try:
        await turn.notes.remember(turn.user_id, turn.scope, note)
    except StorageError as error:
        log.warning("note.write_failed", user_id=turn.user_id, error=str(error))
        return "The note could not be kept just now."
    return "Noted."


async def recall(context: RunContext[TurnContext]) -> list[str]:
    """Read all notes about this user.

    Args:
        context: the turn.
    """
    turn = context.deps
    try:
        # The model would receive an empty list as empty text.
        return await turn.notes.recall(turn.user_id, turn.scope) or ["There are no notes yet."]
    except StorageError as error:
        log.warning("note.read_failed", user_id=turn.user_id, error=str(error))
        return ["The notes cannot be read just now."]


def create_agent(
    spans: TracerProvider | None = None, toolsets: Sequence[AbstractToolset[TurnContext]] = ()
) -> Agent[TurnContext, str]:
    """Creates the agent. It has no model and no state between runs: all turns share it, and each brings its model.

    Args:
        spans: receives the library's spans, without message texts; None disables them.
        toolsets: tools of the capabilities that are on, beside those of every chat.
    """
    # The library would print a banner at its first run, in the middle of a console chat.
    pydantic_ai.BANNER_ENABLED = False
    # `instructions` are evaluated for each turn; a `system_prompt` would freeze the date into the history.
    agent = Agent(deps_type=TurnContext, instructions=CHARACTER, retries=2, toolsets=toolsets)
    agent.instructions(describe_turn)
    equip(agent)
    if spans is not None:
        agent.instrument = InstrumentationSettings(
            tracer_provider=spans, include_content=False, include_model_request_parameters=False
        )
    return agent


def equip(agent: Agent[TurnContext, str]) -> None:
    """Registers the tools of every chat with an agent."""
    described = agent.tool(docstring_format="google", require_parameter_descriptions=True)
    for tool in (current_time, remember, recall):
        described(tool)
