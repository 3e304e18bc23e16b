"""Two models side by side: `/battleground/compare/stream` answers one prompt by both, as server-sent events.

`/battleground/vote` and `/battleground/votes` share the votes of `/compare` in the chat.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from http import HTTPStatus
from typing import Annotated, Any, Literal

import structlog
from aiohttp import web
from pydantic import Field, TypeAdapter
from pydantic_ai.messages import ModelMessage

from bot.web.api.completions import CompletionEvents
from bot.web.api.errors import ApiError, invalid
from bot.web.api.gateway import ApiCall, ApiGateway
from bot.web.api.models import ModelDirectory
from bot.web.api.requests import unusual_messages
from bot.web.api.responses import DONE, count_tokens, encode_event, usage_of
from bot.web.server import HttpRoute
from core.errors import StorageError
from services.compare.contest import ask_model
from services.compare.votes import Votes, Winner
from services.llm.models.factory import LLMModelFactory
from services.llm.openai_messages import WirePart, parse_messages, validate
from services.llm.request import RequestSpec
from services.moderation.domain.verdict import Verdict

log = structlog.get_logger()

SIDES = ("a", "b")
QUEUED_EVENTS = 64
"""Events buffered for the client; providers are read no faster than it reads."""

_Name = Annotated[str, Field(min_length=1, max_length=300)]


class _CompareBody(WirePart):
    model_a_backend_id: _Name
    model_a: _Name
    model_b_backend_id: _Name
    model_b: _Name
    messages: list[Any]


class _VoteBody(WirePart):
    comparison_id: Annotated[int, Field(gt=0, lt=2**63)]
    winner: Literal["a", "b", "tie"]


_BODY = TypeAdapter(_CompareBody)
_VOTE = TypeAdapter(_VoteBody)


@dataclass(frozen=True, slots=True)
class _Event:
    """An event of a side: a piece of text, its end, or its error."""

    side: str
    data: Mapping[str, object]
    error: ApiError | None = None
    is_last: bool = False


class Battleground:
    """Compares two models. No other provider steps in within a side: the comparison is about these two."""

    def __init__(
        self, directory: ModelDirectory, factory: LLMModelFactory[Verdict], gateway: ApiGateway, votes: Votes
    ) -> None:
        self._directory = directory
        self._factory = factory
        self._gateway = gateway
        self._votes = votes

    @property
    def routes(self) -> Sequence[HttpRoute]:
        """The routes."""
        return (
            self._gateway.route("POST", "/battleground/compare/stream", self._serve),
            self._gateway.route("POST", "/battleground/vote", self._vote, is_limited=False),
            self._gateway.route("GET", "/battleground/votes", self._list_votes, is_limited=False),
        )

    async def _serve(self, request: web.Request, call: ApiCall) -> web.StreamResponse:
        body = validate(_BODY, call.body)
        names = (f"{body.model_a_backend_id}/{body.model_a}", f"{body.model_b_backend_id}/{body.model_b}")
        if names[0] == names[1]:
            raise invalid("model_b: choose two different models", "model_b", "same_model")
        messages = parse_messages(body.messages)
        call.facts["asked"] = " ".join(names)
        unusual, is_long = unusual_messages(messages), self._directory.is_long(messages)
        specs = [
            replace(await self._spec(call, name, side), unusual=unusual, is_long=is_long)
            for side, name in zip(SIDES, names, strict=True)
        ]
        number = await self._open(call, names)
        events: asyncio.Queue[_Event] = asyncio.Queue(QUEUED_EVENTS)
        tasks = [
            asyncio.create_task(self._answer(side, name, spec, messages, events, number), name=f"battleground.{side}")
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

    async def _open(self, call: ApiCall, names: tuple[str, str]) -> int | None:
        """Returns the number under which the comparison can be voted on; None while the database fails."""
        try:
            return await self._votes.open(call.token.user, names, call.id)
        except StorageError as error:
            log.warning("battleground.not_stored", error=str(error))
            return None

    async def _vote(self, _request: web.Request, call: ApiCall) -> web.StreamResponse:
        body = validate(_VOTE, call.body)
        found = await self._votes.vote(body.comparison_id, call.token.user, Winner(body.winner))
        if found is None:
            message = "comparison_id: this token has no such comparison, or it has expired"
            raise ApiError(HTTPStatus.NOT_FOUND, message, "comparison_not_found")
        if found.winner != body.winner:
            raise ApiError(HTTPStatus.CONFLICT, f"The vote for {found.winner} counts already.", "already_voted")
        model_a, model_b = found.models
        return web.json_response(
            {"comparison_id": found.id, "winner": found.winner, "model_a": model_a, "model_b": model_b}
        )

    async def _list_votes(self, _request: web.Request, _call: ApiCall) -> web.StreamResponse:
        standings = await self._votes.standings()
        return web.json_response([{**asdict(each), "share": round(each.share, 4)} for each in standings])

    async def _answer(
        self,
        side: str,
        name: str,
        spec: RequestSpec,
        messages: Sequence[ModelMessage],
        events: asyncio.Queue[_Event],
        number: int | None,
    ) -> None:
        model = self._factory.create_routed_model(spec)

        async def write(text: str) -> None:
            await events.put(_Event(side, {"side": side, "delta": text}))

        try:
            response = await ask_model(model, messages, write)
            end = {"model": name, "finish_reason": response.finish_reason or "stop"}
            usage = usage_of(count_tokens(response, list(messages)))
            done = {"side": side, "done": True, **end, "usage": usage, "comparison_id": number}
            await events.put(_Event(side, done, is_last=True))
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
