"""Chat requests in OpenAI's format: validated, and as messages and parameters of a model."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_ai.messages import (
    BinaryContent,
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    ModelResponsePart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserContent,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.output import OutputObjectDefinition
from pydantic_ai.settings import ModelSettings, ThinkingLevel, ToolOrOutput
from pydantic_ai.tools import ToolDefinition

from bot.web.api.errors import ApiError, invalid, unsupported
from services.llm.request import Capability

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
MAX_MESSAGES = 10_000
MAX_TOOLS = 1000


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _Text(_Part):
    type: Literal["text"]
    text: str


class _Refusal(_Part):
    type: Literal["refusal"]
    refusal: str


class _ImageUrl(_Part):
    url: str
    detail: str | None = None


class _Image(_Part):
    type: Literal["image_url"]
    image_url: _ImageUrl


_TextContent = str | list[_Text]
_UserPart = Annotated[_Text | _Image, Field(discriminator="type")]
_AssistantPart = Annotated[_Text | _Refusal, Field(discriminator="type")]


class _System(_Part):
    role: Literal["system", "developer"]
    content: _TextContent


class _User(_Part):
    role: Literal["user"]
    content: str | list[_UserPart]


class _CalledFunction(_Part):
    name: str
    arguments: str


class _ToolCall(_Part):
    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Assistant(_Part):
    role: Literal["assistant"]
    content: str | list[_AssistantPart] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Tool(_Part):
    role: Literal["tool"]
    tool_call_id: str
    content: _TextContent


_Message = Annotated[_System | _User | _Assistant | _Tool, Field(discriminator="role")]


class _Function(_Part):
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _FunctionTool(_Part):
    type: Literal["function"]
    function: _Function


class _Name(_Part):
    name: str


class _ChosenFunction(_Part):
    type: Literal["function"]
    function: _Name


class _AllowedTools(_Part):
    mode: Literal["auto", "required"]
    tools: list[_ChosenFunction]


class _AllowedChoice(_Part):
    type: Literal["allowed_tools"]
    allowed_tools: _AllowedTools


_ToolChoice = (
    Literal["none", "auto", "required"] | Annotated[_ChosenFunction | _AllowedChoice, Field(discriminator="type")]
)


class _Schema(_Part):
    name: str
    description: str | None = None
    json_schema: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class _PlainFormat(_Part):
    type: Literal["text", "json_object"]


class _SchemaFormat(_Part):
    type: Literal["json_schema"]
    json_schema: _Schema


class _StreamOptions(_Part):
    include_usage: bool | None = None


_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Body(_Part):
    """The body of a request; fields that are not here are accepted and have no effect."""

    model: str
    messages: list[_Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    temperature: Annotated[_Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[_Number, Field(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: Annotated[_Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[_Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, int] | None = None
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


_BODY = TypeAdapter(_Body)
_MESSAGES: TypeAdapter[list[_Message]] = TypeAdapter(
    Annotated[list[_Message], Field(min_length=1, max_length=MAX_MESSAGES)]
)


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A valid request.

    Args:
        model: `auto` or `<provider>/<model>`, as it was sent.
        required: the parts that must not be left out for a model that refuses them.
    """

    model: str
    messages: list[ModelMessage]
    settings: ModelSettings
    parameters: ModelRequestParameters
    required: frozenset[Capability]
    is_streamed: bool
    wants_usage: bool


def parse_chat_request(body: object) -> ChatRequest:
    """Return a chat request.

    Raises:
        ApiError: the body is no valid request, or asks for more than the endpoint serves.
    """
    parsed = _validate(_BODY, body)
    _refuse_unsupported(parsed)
    messages = list(_to_messages(parsed.messages))
    return ChatRequest(
        model=parsed.model,
        messages=messages,
        settings=_settings(parsed),
        parameters=_parameters(parsed),
        required=_required(parsed),
        is_streamed=bool(parsed.stream),
        wants_usage=bool(parsed.stream_options and parsed.stream_options.include_usage),
    )


def parse_messages(messages: object) -> list[ModelMessage]:
    """Return a conversation in OpenAI's format as messages of a model.

    Raises:
        ApiError: it is none.
    """
    return list(_to_messages(_validate(_MESSAGES, messages, "messages")))


def _validate(adapter: TypeAdapter[Any], value: object, prefix: str = "") -> Any:  # noqa: ANN401 - the adapter's type
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Without the branches of unions, which are names of ours.
        place = [str(part) for part in fault["loc"] if isinstance(part, int) or part.isidentifier()]
        param = ".".join(filter(None, [prefix, *(part for part in place if not part.startswith("_"))]))
        raise invalid(f"{param or 'the body'}: {fault['msg']}", param or None) from None


def _refuse_unsupported(body: _Body) -> None:
    if body.n not in {None, 1}:
        raise unsupported("n", "n: one answer is given to each request; send as many requests as you need answers")
    if body.logprobs or body.top_logprobs:
        raise unsupported("logprobs", "logprobs: not every provider has them, so they are not served")
    if body.audio is not None or (body.modalities is not None and body.modalities != ["text"]):
        raise unsupported("modalities", "modalities: answers are text")
    if body.functions is not None or body.function_call is not None:
        raise unsupported("functions", "functions: use tools and tool_choice, which have replaced them")


def _settings(body: _Body) -> ModelSettings:
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


def _tool_choice(body: _Body) -> Any:  # noqa: ANN401 - the library's union
    choice = body.tool_choice
    names = {tool.function.name for tool in body.tools or ()}
    match choice:
        case None | "auto" | "none":
            return choice if names else None
        case "required":
            chosen: Sequence[str] = sorted(names)
            wanted: Any = "required"
        case _ChosenFunction():
            chosen = [choice.function.name]
            wanted = chosen
        case _AllowedChoice():
            chosen = [tool.function.name for tool in choice.allowed_tools.tools]
            is_free = choice.allowed_tools.mode == "auto"
            wanted = ToolOrOutput(function_tools=list(chosen)) if is_free else list(chosen)
    if not chosen or not names.issuperset(chosen):
        raise invalid("tool_choice: names a tool that is not in tools", "tool_choice")
    return wanted


def _parameters(body: _Body) -> ModelRequestParameters:
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
        raise invalid("tools: two of them have the same name", "tools")
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


def _required(body: _Body) -> frozenset[Capability]:
    required = {Capability.IMAGES}
    if body.tools:
        required |= {Capability.TOOLS, Capability.TOOL_CHOICE}
    return frozenset(required)


def _to_messages(messages: Sequence[_Message]) -> Iterator[ModelMessage]:
    """Yield the messages, in which neighbouring parts of the caller's side are one request."""
    names: dict[str, str] = {}
    parts: list[ModelRequestPart] = []
    for index, message in enumerate(messages):
        if isinstance(message, _Assistant):
            if parts:
                yield ModelRequest(parts)
                parts = []
            names |= {call.id: call.function.name for call in message.tool_calls or ()}
            yield _response(message, index)
        else:
            parts.append(_request_part(message, names, index))
    if parts:
        yield ModelRequest(parts)


def _request_part(message: _System | _User | _Tool, names: dict[str, str], index: int) -> ModelRequestPart:
    match message:
        case _System():
            return SystemPromptPart(_join(message.content))
        case _Tool():
            name = names.get(message.tool_call_id)
            if name is None:
                where = f"messages.{index}.tool_call_id"
                raise invalid(f"{where}: no assistant message before it has a tool call of that id", where)
            return ToolReturnPart(name, _join(message.content), tool_call_id=message.tool_call_id)
        case _User():
            if isinstance(message.content, str):
                return UserPromptPart(message.content)
            if not message.content:
                raise invalid(f"messages.{index}.content: is empty", f"messages.{index}.content")
            return UserPromptPart([_user_content(part, index, place) for place, part in enumerate(message.content)])


def _user_content(part: _Text | _Image, index: int, place: int) -> UserContent:
    return part.text if isinstance(part, _Text) else _image(part.image_url, f"messages.{index}.content.{place}")


def _image(image: _ImageUrl, where: str) -> BinaryContent:
    """Return an image of a data URL; addresses are not fetched, since they could be those of the operator's network."""
    head, separator, encoded = image.url.partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64").lower()
    if not separator or not head.startswith("data:") or not head.endswith(";base64"):
        message = f"{where}: send images as data URLs (data:image/png;base64,...); addresses are not fetched"
        raise ApiError(400, message, "invalid_image_url", where)
    if media_type not in IMAGE_TYPES:
        raise ApiError(400, f"{where}: images are PNG, JPEG, GIF or WebP", "invalid_image_format", where)
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise ApiError(400, f"{where}: the image is not valid base64", "invalid_base64", where)
    detail = {"detail": image.detail} if image.detail in {"low", "high", "auto"} else None
    return BinaryContent(data, media_type=media_type, vendor_metadata=detail)


def _response(message: _Assistant, index: int) -> ModelResponse:
    match message.content:
        case None:
            text = message.refusal or ""
        case str(content):
            text = content
        case parts:
            text = "".join(part.text if isinstance(part, _Text) else part.refusal for part in parts)
    calls = message.tool_calls or []
    answer: list[ModelResponsePart] = [TextPart(text)] if text else []
    answer += [ToolCallPart(call.function.name, call.function.arguments, call.id) for call in calls]
    if not answer and message.content is None:
        raise invalid(f"messages.{index}: has neither content nor tool_calls", f"messages.{index}.content")
    return ModelResponse(answer or [TextPart("")])


def _join(content: str | list[_Text]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
