"""The tools of MCP servers in a turn: those that only read at once, those that act once their user has agreed."""

import json
import re
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset, ToolsetTool
from pydantic_core import SchemaValidator, core_schema
from typing_extensions import override

from core.errors import StorageError
from core.messages import Surface
from core.shortening import shorten_line
from services.chat.reply import AskedCall
from services.chat.turn import TurnContext
from services.mcp.calls import CallStatus, ToolCall, ToolCalls, TooManyCalls
from services.mcp.servers import McpServers, ServerTool

log = structlog.get_logger()

ANY_ARGUMENTS = SchemaValidator(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))
"""The server checks the arguments by its own schema."""
OWN_TOOLS = frozenset(
    {"current_time", "fetch_page", "web_search", "schedule_message", "list_schedules", "cancel_schedule",
     "draw_picture", "read_document"}
)  # fmt: skip
"""Names of the bot's own tools that a server's tool could also have; a duplicate name fails every turn."""
LONGEST_ARGUMENTS = 8_000
SHOWN_BEGINNING, SHOWN_END = 400, 200
LONGEST_SHOWN_TOOL = 100
ASKED = (
    "Not carried out yet: the user is asked below your answer whether they allow it. End your answer now with one "
    "sentence on what you want to do, and do not call the tool again."
)
UNKNOWN = "It is unknown whether this call was carried out: the bot stopped meanwhile. Say so, and do not repeat it."


@dataclass(kw_only=True)
class _OfferedTool(ToolsetTool[TurnContext]):
    """Keeps which server's tool the model was offered: tools of two servers may have the same name for models."""

    offered: ServerTool

    def is_same(self, tool: ServerTool) -> bool:
        return (tool.server.name, tool.name) == (self.offered.server.name, self.offered.name)


class McpTools(AbstractToolset[TurnContext]):
    """Offers the tools of the servers that are connected when a turn begins.

    Tools that act need a surface with buttons and a job that can be repeated: they are offered in Telegram only. Chats
    that keep their messages on the operator's machines have no servers of other networks.
    """

    def __init__(self, servers: McpServers, calls: ToolCalls) -> None:
        self._servers = servers
        self._calls = calls

    @property
    def id(self) -> str | None:
        """Name of the toolset."""
        return "mcp"

    async def get_tools(self, ctx: RunContext[TurnContext]) -> dict[str, ToolsetTool[TurnContext]]:
        """Returns the tools by the names that the model is given."""
        turn, offered = ctx.deps, dict[str, ToolsetTool[TurnContext]]()
        for tool in self._servers.tools():
            if turn.is_local_only and tool.server.is_remote:
                continue
            if tool.is_acting and (turn.conversation.surface is not Surface.TELEGRAM or turn.origin is None):
                continue
            name = model_name(tool)
            # Servers come and go while the model answers: the name must not reach another tool than it was offered.
            if turn.offered.setdefault(name, (tool.server.name, tool.name)) != (tool.server.name, tool.name):
                continue
            definition = ToolDefinition(
                name=name,
                description=f"(Of the server {tool.server.name}.) {tool.description}",
                parameters_json_schema=tool.schema,
            )
            offered[name] = _OfferedTool(
                toolset=self, tool_def=definition, max_retries=1, args_validator=ANY_ARGUMENTS, offered=tool
            )
        return offered

    @override
    async def call_tool(
        self,
        name: str,
        tool_args: dict[str, Any],
        ctx: RunContext[TurnContext],
        tool: ToolsetTool[TurnContext],
    ) -> str:
        """Calls a tool, or asks its user first."""
        found = None
        if isinstance(tool, _OfferedTool):
            found = next(filter(tool.is_same, self._servers.tools()), None)
        if found is None:
            return "The server of this tool is not connected any more, so nothing was done."
        if not found.is_acting:
            return await self._servers.call(found.server.name, found.name, tool_args)
        try:
            return await self._act(found, tool_args, ctx.deps)
        except StorageError as error:
            # Without the record nothing would keep the call from being repeated.
            log.warning("tool.not_recorded", server=found.server.name, error=str(error))
            return "The database is unavailable, so nothing was done."

    async def _act(self, tool: ServerTool, arguments: dict[str, Any], turn: TurnContext) -> str:
        if len(json.dumps(arguments)) > LONGEST_ARGUMENTS:
            return "The arguments are too long, so nothing was done."
        key, user_id, origin = turn.conversation, turn.user_id, turn.origin or ""
        is_granted = await self._calls.is_granted(key.surface, user_id, tool.server.name, tool.name)
        status = CallStatus.BEGUN if is_granted else CallStatus.ASKED
        try:
            call, is_new = await self._calls.open(origin, key, user_id, tool.server.name, tool.name, arguments, status)
        except TooManyCalls:
            return "The user is asked about enough calls already, so nothing was done. End your answer now."
        if call.status is CallStatus.ASKED:
            return ASKED
        # A known call was made before in the same answer, before a crash, or before a Retry.
        return await self._finish(call) if is_new else _recorded_result(call)

    async def carry_out(self, call: ToolCall) -> str:
        """Carries out a call that its user has decided on, at most once. Returns the result for the model.

        Raises:
            StorageError: the database fails; nothing was done.
        """
        if call.status is CallStatus.ALLOWED:
            await self._servers.wait_for(call.server)
        if call.status is CallStatus.ALLOWED and await self._calls.begin(call.id):
            return await self._finish(call)
        return _recorded_result(await self._calls.find(call.id) or call)

    async def asked(self, origin: str) -> list[AskedCall]:
        """Returns the calls that an answer asks its user to allow.

        Raises:
            StorageError: the database fails.
        """
        return [AskedCall(call.id, describe_call(call)) for call in await self._calls.asked(origin)]

    def as_messages(self, call: ToolCall, result: str) -> list[ModelMessage]:
        """Returns a call that was decided as the model receives it, with its result."""
        name, call_id = call_name(call.server, call.tool), f"call_{call.id}"
        return [
            ModelResponse([ToolCallPart(name, call.arguments, call_id)]),
            ModelRequest([ToolReturnPart(name, result, call_id)]),
        ]

    async def _finish(self, call: ToolCall) -> str:
        log.info("tool.called", call=call.id, server=call.server, tool=call.tool)
        result = await self._servers.call(call.server, call.tool, call.arguments)
        try:
            await self._calls.finish(call.id, result)
        except StorageError as error:
            log.warning("tool.result_not_recorded", call=call.id, error=str(error))
        return result


def _recorded_result(call: ToolCall) -> str:
    """Returns the result of a call that is not carried out again."""
    match call.status:
        case CallStatus.DENIED:
            return "The user did not allow this call. It was not carried out."
        case CallStatus.ALLOWED:
            return "The user has allowed this call; its result follows in an answer of its own. Do not repeat it."
        case _:
            return call.result if call.result is not None else UNKNOWN


def describe_call(call: ToolCall) -> str:
    """Returns the server, the tool and the arguments of a call on one bounded line, for people.

    Of long arguments both ends and the number of characters between them are shown: an act must not hide behind a long
    beginning.
    """
    arguments = " ".join(json.dumps(call.arguments, ensure_ascii=False).split())
    if (hidden := len(arguments) - SHOWN_BEGINNING - SHOWN_END) > 0:
        arguments = f"{arguments[:SHOWN_BEGINNING]} […{hidden}…] {arguments[-SHOWN_END:]}"
    line = f"{call.server}: {shorten_line(call.tool, LONGEST_SHOWN_TOOL)} {arguments}"
    return "".join(each if each.isprintable() else " " for each in line)


def model_name(tool: ServerTool) -> str:
    """Returns the name by which a model calls a tool: providers admit 64 letters, digits, `_` and `-`."""
    return call_name(tool.server.name, tool.name)


def call_name(server: str, tool: str) -> str:
    """Returns the name by which a model calls a tool of a server."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", f"{server}_{tool}")[:64]
    return f"{name}_mcp" if name in OWN_TOOLS else name
