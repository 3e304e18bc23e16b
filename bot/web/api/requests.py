"""Chat requests in OpenAI's format: validated, and as messages and parameters of a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import Field, TypeAdapter
from pydantic_ai.messages import ModelMessage, ModelResponse, SystemPromptPart, TextPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings, ThinkingLevel, ToolChoice, ToolOrOutput
from pydantic_ai.tools import ToolDefinition

from services.llm.models.candidate_call import has_image
from services.llm.openai_messages import MAX_MESSAGES, InvalidRequest, Message, WirePart, to_messages, validate
from services.llm.request import Capability

MAX_TOOLS = 1000
MAX_STOPS = 16
"""OpenAI takes 4, others more."""
MAX_TOKENS = 2**31 - 1


class _Function(WirePart):
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _FunctionTool(WirePart):
    type: Literal["function"]
    function: _Function


class _Name(WirePart):
    name: str


class _ChosenFunction(WirePart):
    type: Literal["function"]
    function: _Name


class _AllowedTools(WirePart):
    mode: Literal["auto", "required"]
    tools: list[_ChosenFunction]


class _AllowedChoice(WirePart):
    type: Literal["allowed_tools"]
    allowed_tools: _AllowedTools


_ToolChoice = (
    Literal["none", "auto", "required"] | Annotated[_ChosenFunction | _AllowedChoice, Field(discriminator="type")]
)


class _Schema(WirePart):
    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class _PlainFormat(WirePart):
    type: Literal["text", "json_object"]


class _SchemaFormat(WirePart):
    type: Literal["json_schema"]
    json_schema: _Schema


class _StreamOptions(WirePart):
    include_usage: bool | None = None


_Number = Annotated[float, Field(allow_inf_nan=False)]
_TokenCount = Annotated[int, Field(ge=1, le=MAX_TOKENS)]


class _ChatBody(WirePart):
    """The body of a request; fields that are not here are accepted and have no effect."""

    model: str
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[_Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[_Number, Field(ge=0, le=1)] | None = None
    max_tokens: _TokenCount | None = None
    max_completion_tokens: _TokenCount | None = None
    stop: str | Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    presence_penalty: Annotated[_Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[_Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, Annotated[int, Field(ge=-100, le=100)]] | None = None
    n: int | None = None
    tools: list[_FunctionTool] | None = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: _ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Annotated[_PlainFormat | _SchemaFormat, Field(discriminator="type")] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    functions: Any = None
    function_call: Any = None
    audio: Any = None


_BODY = TypeAdapter(_ChatBody)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid request.

    Args:
        model: `auto` or `<provider>/<model>`, as it was sent.
        required: the parts that must not be left out for a model that refuses them.
        unusual: the parts that differ from those of a chat of the bot.
        may_be_empty_at: finish reasons with which an answer without text is valid.
    """

    model: str
    messages: list[ModelMessage]
    settings: ModelSettings
    parameters: ModelRequestParameters
    required: frozenset[Capability]
    unusual: frozenset[Capability]
    may_be_empty_at: frozenset[str]
    is_streamed: bool
    wants_usage: bool


def parse_chat_request(body: object) -> ChatRequest:
    """Returns a chat request.

    Raises:
        InvalidRequest: the body is no valid request, or asks for more than the endpoint serves.
    """
    parsed = validate(_BODY, body)
    _refuse_unsupported(parsed)
    messages = list(to_messages(parsed.messages))
    settings = _settings(parsed)
    return ChatRequest(
        model=parsed.model,
        messages=messages,
        settings=settings,
        parameters=_parameters(parsed),
        required=_required(parsed),
        unusual=_unusual(parsed, settings) | unusual_messages(messages),
        may_be_empty_at=_may_be_empty_at(parsed),
        is_streamed=bool(parsed.stream),
        wants_usage=bool(parsed.stream_options and parsed.stream_options.include_usage),
    )


def _refuse_unsupported(body: _ChatBody) -> None:
    if body.n not in {None, 1}:
        raise _unsupported("n", "n: one answer is given to each request; send as many requests as you need answers")
    if body.logprobs or body.top_logprobs:
        raise _unsupported("logprobs", "logprobs: not every provider has them, so they are not served")
    if body.audio is not None or (body.modalities is not None and body.modalities != ["text"]):
        raise _unsupported("modalities", "modalities: answers are text")
    if body.functions is not None or body.function_call is not None:
        raise _unsupported("functions", "functions: use tools and tool_choice, which have replaced them")


def _unsupported(param: str, message: str) -> InvalidRequest:
    return InvalidRequest(message, param, "unsupported_parameter")


def _settings(body: _ChatBody) -> ModelSettings:
    settings = ModelSettings()
    limit = body.max_completion_tokens or body.max_tokens
    values: dict[str, object | None] = {
        "max_tokens": limit,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "seed": body.seed,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "logit_bias": body.logit_bias,
        "parallel_tool_calls": body.parallel_tool_calls if body.tools else None,
        "stop_sequences": [body.stop] if isinstance(body.stop, str) else body.stop,
        "thinking": _thinking(body.reasoning_effort),
        "tool_choice": _tool_choice(body),
    }
    settings.update(cast("ModelSettings", {name: value for name, value in values.items() if value is not None}))
    return settings


def _thinking(effort: str | None) -> ThinkingLevel | None:
    return False if effort == "none" else cast("ThinkingLevel | None", effort)


def _tool_choice(body: _ChatBody) -> ToolChoice:
    choice = body.tool_choice
    names = {tool.function.name for tool in body.tools or ()}
    match choice:
        case None | "auto" | "none":
            return choice if names else None
        case "required":
            chosen = sorted(names)
            wanted: ToolChoice = "required"
        case _ChosenFunction():
            chosen = [choice.function.name]
            wanted = chosen
        case _AllowedChoice():
            chosen = [tool.function.name for tool in choice.allowed_tools.tools]
            is_free = choice.allowed_tools.mode == "auto"
            wanted = ToolOrOutput(function_tools=list(chosen)) if is_free else list(chosen)
    if not chosen or not names.issuperset(chosen):
        raise InvalidRequest("tool_choice: names a tool that is not in tools", "tool_choice")
    return wanted


def _parameters(body: _ChatBody) -> ModelRequestParameters:
    tools = [
        ToolDefinition(
            name=tool.function.name,
            description=tool.function.description,
            parameters_json_schema=tool.function.parameters or {"type": "object", "properties": {}},
            # Without a value the library would decide by the schema, and change it.
            strict=bool(tool.function.strict),
        )
        for tool in body.tools or ()
    ]
    if len({tool.name for tool in tools}) < len(tools):
        raise InvalidRequest("tools: two of them have the same name", "tools")
    match body.response_format:
        case _SchemaFormat(json_schema=wanted):
            output = OutputObjectDefinition(
                wanted.json_schema or {"type": "object"}, wanted.name, wanted.description, wanted.strict
            )
            return ModelRequestParameters(function_tools=tools, output_mode="native", output_object=output)
        case _PlainFormat(type="json_object"):
            # Without a template: the library would add a schema in words, and the caller has its own.
            return ModelRequestParameters(function_tools=tools, output_mode="prompted", prompted_output_template=False)
        case _:
            return ModelRequestParameters(function_tools=tools)


def _unusual(body: _ChatBody, settings: ModelSettings) -> frozenset[Capability]:
    unusual: set[Capability] = set()
    if settings:
        unusual.add(Capability.SETTINGS)
    if body.tools:
        unusual |= {Capability.TOOLS, Capability.TOOL_CHOICE}
    if body.response_format is not None and body.response_format.type != "text":
        unusual.add(Capability.STRUCTURED_OUTPUT)
    return frozenset(unusual)


def unusual_messages(messages: Sequence[ModelMessage]) -> frozenset[Capability]:
    """Returns the parts of a conversation that differ from those of a chat of the bot.

    A chat is one system text and turns of one text each, the last of them the user's.
    """
    unusual: set[Capability] = set()
    if any(map(has_image, messages)):
        unusual.add(Capability.IMAGES)
    if not all(_is_usual_turn(message, index) for index, message in enumerate(messages)) or isinstance(
        messages[-1], ModelResponse
    ):
        unusual |= {Capability.SYSTEM_ROLE, Capability.TOOLS}
    return frozenset(unusual)


def _is_usual_turn(message: ModelMessage, index: int) -> bool:
    is_answer_due = index % 2 == 1
    if isinstance(message, ModelResponse):
        return is_answer_due and all(isinstance(part, TextPart) for part in message.parts)
    parts = message.parts[1:] if index == 0 and isinstance(message.parts[0], SystemPromptPart) else message.parts
    return not is_answer_due and len(parts) == 1 and isinstance(parts[0], UserPromptPart) and bool(parts[0].content)


def _may_be_empty_at(body: _ChatBody) -> frozenset[str]:
    ends: set[str] = set()
    if body.max_tokens is not None or body.max_completion_tokens is not None:
        ends.add("length")
    if body.stop:
        ends.add("stop")
    return frozenset(ends)


def _required(body: _ChatBody) -> frozenset[Capability]:
    required = {Capability.IMAGES}
    if body.tools:
        required |= {Capability.TOOLS, Capability.TOOL_CHOICE}
    return frozenset(required)
