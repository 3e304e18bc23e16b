"""Conversations in OpenAI's format: validated, and as messages of a model."""

import base64
import binascii
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, TypeVar

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

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
MAX_MESSAGES = 10_000
FAULT_LENGTH = 300
"""Longest description of a fault, in characters: some quote the value."""

ValueT = TypeVar("ValueT")


class InvalidRequest(ValueError):
    """A request that is not in OpenAI's format, or asks for more than is served.

    Args:
        param: the field at fault, such as `messages.0.content`.
        code: OpenAI's code for it, if there is one.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        self.param = param
        self.code = code
        super().__init__(message)


class WirePart(BaseModel):
    """Base of the parts of a request; fields that are not declared are accepted and have no effect."""

    model_config = ConfigDict(strict=True, extra="ignore", hide_input_in_errors=True)


class _Text(WirePart):
    type: Literal["text"]
    text: str


class _Refusal(WirePart):
    type: Literal["refusal"]
    refusal: str


class _ImageUrl(WirePart):
    url: str
    detail: str | None = None


class _Image(WirePart):
    type: Literal["image_url"]
    image_url: _ImageUrl


_TextContent = str | list[_Text]
_UserPart = Annotated[_Text | _Image, Field(discriminator="type")]
_AssistantPart = Annotated[_Text | _Refusal, Field(discriminator="type")]


class _System(WirePart):
    role: Literal["system", "developer"]
    content: _TextContent


class _User(WirePart):
    role: Literal["user"]
    content: str | list[_UserPart]


class _CalledFunction(WirePart):
    name: str
    arguments: str


class _ToolCall(WirePart):
    id: str
    type: Literal["function"] = "function"
    function: _CalledFunction


class _Assistant(WirePart):
    role: Literal["assistant"]
    content: str | list[_AssistantPart] | None = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Tool(WirePart):
    role: Literal["tool"]
    tool_call_id: str
    content: _TextContent


Message = Annotated[_System | _User | _Assistant | _Tool, Field(discriminator="role")]


_MESSAGES: TypeAdapter[list[Message]] = TypeAdapter(
    Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
)


def validate(adapter: TypeAdapter[ValueT], value: object, prefix: str = "") -> ValueT:
    """Returns a value of a request.

    Args:
        adapter: validator of the type.
        value: JSON.
        prefix: the field that holds it.

    Raises:
        InvalidRequest: it has another form.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # Without the branches of unions, which are names of ours.
        place = [str(part) for part in fault["loc"] if isinstance(part, int) or part.isidentifier()]
        param = ".".join(filter(None, [prefix, *(part for part in place if not part.startswith("_"))]))
        raise InvalidRequest(f"{param or 'the body'}: {fault['msg'][:FAULT_LENGTH]}", param or None) from None


def parse_messages(messages: object) -> list[ModelMessage]:
    """Returns a conversation as messages of a model.

    Raises:
        InvalidRequest: it has another form.
    """
    return list(to_messages(validate(_MESSAGES, messages, "messages")))


def to_messages(messages: Sequence[Message]) -> Iterator[ModelMessage]:
    """Yields validated messages as those of a model; neighbouring messages that are no answer are one request."""
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
                raise InvalidRequest(f"{where}: no assistant message before it has a tool call of that id", where)
            return ToolReturnPart(name, _join(message.content), tool_call_id=message.tool_call_id)
        case _User():
            if isinstance(message.content, str):
                return UserPromptPart(message.content)
            if not message.content:
                raise InvalidRequest(f"messages.{index}.content: is empty", f"messages.{index}.content")
            return UserPromptPart([_user_content(part, index, place) for place, part in enumerate(message.content)])


def _user_content(part: _Text | _Image, index: int, place: int) -> UserContent:
    return part.text if isinstance(part, _Text) else _image(part.image_url, f"messages.{index}.content.{place}")


def _image(image: _ImageUrl, where: str) -> BinaryContent:
    """Returns an image of a data URL; addresses are not fetched, since they may be in the operator's network."""
    head, separator, encoded = image.url.partition(",")
    media_type = head.removeprefix("data:").removesuffix(";base64").lower()
    if not separator or not head.startswith("data:") or not head.endswith(";base64"):
        message = f"{where}: send images as data URLs (data:image/png;base64,...); addresses are not fetched"
        raise InvalidRequest(message, where, "invalid_image_url")
    if media_type not in IMAGE_TYPES:
        raise InvalidRequest(f"{where}: images are PNG, JPEG, GIF or WebP", where, "invalid_image_format")
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise InvalidRequest(f"{where}: the image is not valid base64", where, "invalid_base64")
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
        raise InvalidRequest(f"messages.{index}: has neither content nor tool_calls", f"messages.{index}.content")
    return ModelResponse(answer or [TextPart("")])


def _join(content: str | list[_Text]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
