"""Two models side by side: `/battleground/compare/stream` answers one prompt by both, as server-sent events."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from aiohttp import web
from pydantic import Field, TypeAdapter
from pydantic_ai.messages import ModelMessage, PartDeltaEvent, PartStartEvent, TextPart, TextPartDelta
from pydantic_ai.models import ModelRequestParameters

from bot.web.api.completions import CompletionEvents
from bot.web.api.errors import ApiError, invalid
from bot.web.api.gateway import ApiCall, ApiGateway
from bot.web.api.models import ModelDirectory
from bot.web.api.responses import DONE, count_tokens, encode_event, usage_of
from bot.web.server import HttpRoute
from services.llm.models.factory import LLMModelFactory
from services.llm.openai_messages import WirePart, parse_messages, validate
from services.llm.request import RequestSpec
from services.moderation.domain.verdict import Verdict

SIDES = ("a", "b")
QUEUED_EVENTS = 64
"""Events that may wait for the client; the providers are read no faster than it reads."""

_Name = Annotated[str, Field(min_length=1, max_length=300)]


class _CompareBody(WirePart):
    model_a_backend_id: _Name
    model_a: _Name
    model_b_backend_id: _Name
    model_b: _Name
    messages: list[Any]


_BODY = TypeAdapter(_CompareBody)


@dataclass(frozen=True, slots=True)
class _Event:
    """An event of a side: a piece of text, its end, or its error."""

    side: str
    data: Mapping[str, object]
    error: ApiError | None = None
    is_last: bool = False


class Battleground:
    """Compares two models. No other provider steps in within a side: the comparison is about these two."""

    def __init__(self, directory: ModelDirectory, factory: LLMModelFactory[Verdict], gateway: ApiGateway) -> None:
        self._directory = directory
        self._factory = factory
        self._gateway = gateway

    @property
    def route(self) -> HttpRoute:
        """The route."""
        return self._gateway.route("POST", "/battleground/compare/stream", self._serve)

    async def _serve(self, request: web.Request, call: ApiCall) -> web.StreamResponse:
        body = validate(_BODY, call.body)
        names = (f"{body.model_a_backend_id}/{body.model_a}", f"{body.model_b_backend_id}/{body.model_b}")
        if names[0] == names[1]:
            raise invalid("model_b: choose two different models", "model_b", "same_model")
        messages = parse_messages(body.messages)
        call.facts["asked"] = " ".join(names)
        specs = [await self._spec(call, name, side) for side, name in zip(SIDES, names, strict=True)]
        events: asyncio.Queue[_Event] = asyncio.Queue(QUEUED_EVENTS)
        tasks = [
            asyncio.create_task(self._answer(side, name, spec, messages, events), name=f"battleground.{side}")
            for side, name, spec in zip(SIDES, names, specs, strict=True)
        ]
        try:
            return await _send(CompletionEvents(request, call.id), events)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _spec(self, call: ApiCall, name: str, side: str) -> RequestSpec:
        try:
            spec = await self._directory.spec(call.token, name)
        except ApiError as error:
            raise invalid(error.message, f"model_{side}", error.code) from None
        return replace(spec, is_pinned=True)

    async def _answer(
        self, side: str, name: str, spec: RequestSpec, messages: Sequence[ModelMessage], events: asyncio.Queue[_Event]
    ) -> None:
        model = self._factory.create_routed_model(spec)
        sent = list(messages)
        try:
            async with model.request_stream(sent, None, ModelRequestParameters()) as stream:
                async for event in stream:
                    match event:
                        case (
                            PartDeltaEvent(delta=TextPartDelta(content_delta=text))
                            | PartStartEvent(part=TextPart(content=text))
                        ) if text:
                            await events.put(_Event(side, {"side": side, "delta": text}))
                        case _:
                            pass
                response = stream.get()
            end = {"model": name, "finish_reason": response.finish_reason or "stop"}
            usage = usage_of(count_tokens(response, sent))
            await events.put(_Event(side, {"side": side, "done": True, **end, "usage": usage}, is_last=True))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - the other side goes on; a bug is logged
            failure = self._gateway.to_error(error)
            await events.put(_Event(side, {"side": side, **failure.body()}, failure, is_last=True))


async def _send(out: CompletionEvents, events: asyncio.Queue[_Event]) -> web.StreamResponse:
    """Sends the events of both sides as they come.

    Raises:
        ApiError: both sides failed before anything was sent, so it is a status.
    """
    failed: list[_Event] = []
    running = len(SIDES)
    while running:
        event = await events.get()
        running -= event.is_last
        if event.error is not None and not out.response.prepared:
            failed.append(event)
            continue
        await out.send(b"".join(encode_event(each.data) for each in (*failed, event)))
        failed.clear()
    if not out.response.prepared and failed and failed[0].error is not None:
        raise failed[0].error
    await out.send(b"".join(encode_event(each.data) for each in failed) + DONE)
    return await out.close()
