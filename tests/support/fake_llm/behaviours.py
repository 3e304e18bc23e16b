"""Behaviours of the fake LLM server: good answers, error responses, and failures of the connection."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.wire import WireError


class Behaviour(Protocol):
    """Answer to one request."""

    async def play(self, exchange: Exchange) -> None: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer, and every answer that is good up to some point; see the functions below."""

    pieces: tuple[str, ...] = ()
    finish: str | None = "stop"
    usage: bool = True
    delay_s: float = 0
    pause_s: float = 0
    thinking: str | None = None
    tool: tuple[str, str] | None = None
    refused: str | None = None
    done_marker: bool = True
    gate: asyncio.Event | None = None
    gate_after: int = 0
    breaks_off: Callable[[Exchange], Awaitable[None]] | None = None
    """Replaces the end, streamed or plain."""
    trails_off: Callable[[Exchange], Awaitable[None]] | None = None
    """Replaces the end marker of a stream."""

    async def play(self, exchange: Exchange) -> None:
        if self.delay_s:
            await exchange.wait(asyncio.sleep(self.delay_s))
        if exchange.request.streamed:
            await self._stream(exchange)
        else:
            await self._plain(exchange)

    async def _stream(self, exchange: Exchange) -> None:
        wire = exchange.wire
        await exchange.start_stream()
        await exchange.chunk(wire.opening())
        if self.thinking is not None:
            await exchange.chunk(wire.thinking(self.thinking))
        await self._send_pieces(exchange)
        if self.refused is not None:
            await exchange.chunk(wire.refusal(self.refused))
        if self.tool is not None:
            await exchange.chunk(wire.tool_call(*self.tool))
        if self.breaks_off is not None:
            await self.breaks_off(exchange)
            return
        if self.finish is not None:
            await exchange.chunk(wire.finish(self.finish, usage=self.usage))
        if self.trails_off is not None:
            await self.trails_off(exchange)
            return
        if self.done_marker:
            await exchange.chunk(wire.done())
        await exchange.end()

    async def _send_pieces(self, exchange: Exchange) -> None:
        for number, piece in enumerate(self.pieces, start=1):
            if number > 1 and self.pause_s:
                await exchange.wait(asyncio.sleep(self.pause_s))
            await exchange.chunk(exchange.wire.text(piece))
            if self.gate is not None and number == self.gate_after:
                await exchange.wait(self.gate.wait())

    async def _plain(self, exchange: Exchange) -> None:
        if self.gate is not None:
            await exchange.wait(self.gate.wait())
        if self.breaks_off is not None:
            await self.breaks_off(exchange)
            return
        body = exchange.wire.plain(
            "".join(self.pieces) if self.pieces else None,
            finish=self.finish,
            usage=self.usage,
            thinking=self.thinking,
            tool=self.tool,
            refusal=self.refused,
        )
        await exchange.body(body)


@dataclass(frozen=True, slots=True)
class Act:
    """Anything else: a function of the exchange."""

    do: Callable[[Exchange], Awaitable[None]]

    async def play(self, exchange: Exchange) -> None:
        await self.do(exchange)


def _pieces(text: str, pieces: Sequence[str] | None = None) -> tuple[str, ...]:
    """The text as a model streams it: word by word, each word with the space before it."""
    return tuple(pieces) if pieces is not None else tuple(re.findall(r"\s*\S+\s*$|\s*\S+", text)) or (text,)


def answer(
    text: str = "Hello",
    pieces: Sequence[str] | None = None,
    finish: str = "stop",
    *,
    usage: bool = True,
    delay_s: float = 0,
    pause_s: float = 0,
    thinking: str | None = None,
) -> Answer:
    """A good answer after `delay_s`, its pieces (words, unless given) `pause_s` apart."""
    return Answer(_pieces(text, pieces), finish, usage, delay_s, pause_s, thinking)


def tool_call(name: str, arguments: Mapping[str, Any] | str, text: str = "") -> Answer:
    """A call of one tool, after some text if given."""
    encoded = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return Answer(_pieces(text) if text else (), "tool_calls", tool=(name, encoded))


def gate(event: asyncio.Event, *, after_pieces: int = 0, then: Behaviour | None = None) -> Behaviour:
    """Hold an answer until the test sets the event: before the first byte, or after so many pieces."""
    then = then or answer("Hello from behind the gate")
    if not after_pieces:

        async def held(exchange: Exchange) -> None:
            await exchange.wait(event.wait())
            await then.play(exchange)

        return Act(held)
    if not isinstance(then, Answer):
        raise TypeError("only an Answer has pieces to hold back")
    return replace(then, gate=event, gate_after=after_pieces)


def status(
    code: int, body: Mapping[str, Any] | bytes | None = None, headers: Mapping[str, str] | None = None
) -> Behaviour:
    """An HTTP error, worded as the provider would unless a body is given."""

    async def do(exchange: Exchange) -> None:
        default = exchange.wire.error_body(exchange.wire.fault(code))
        await exchange.body(default if body is None else body, code, headers=headers)

    return Act(do)


def quota_exceeded() -> Behaviour:
    """The account is out of credit: OpenAI says so with a 429, Anthropic with a 400, others with a 402."""
    return Act(lambda exchange: exchange.fault(*exchange.wire.quota_exceeded()))


def context_exceeded() -> Behaviour:
    """The prompt is longer than the model's window."""
    return Act(lambda exchange: exchange.fault(*exchange.wire.context_exceeded()))


def model_unknown() -> Behaviour:
    """No model of that name: most say so with a 404, DeepSeek and Mistral with a 400."""
    return Act(lambda exchange: exchange.fault(*exchange.wire.model_unknown()))


def empty_body() -> Behaviour:
    """A 200 with nothing in it."""
    return Act(lambda exchange: exchange.body(b""))


def empty_stream() -> Behaviour:
    """A 200 whose stream ends without output (a plain request gets an empty message)."""

    async def do(exchange: Exchange) -> None:
        if not exchange.request.streamed:
            await exchange.body(exchange.wire.empty())
            return
        await exchange.start_stream()
        await exchange.end()

    return Act(do)


def empty_answer() -> Answer:
    """A well-formed answer with a finish reason and no text."""
    return Answer()


def no_choices() -> Behaviour:
    """A 200 without a single choice (Anthropic: without content)."""

    async def do(exchange: Exchange) -> None:
        if not exchange.request.streamed:
            await exchange.body(exchange.wire.no_choices())
            return
        await exchange.start_stream()
        await exchange.chunk(exchange.wire.no_choices_in_stream())
        await exchange.end()

    return Act(do)


def error_object_in_200(
    code: str | int | None = None,
    type: str | None = "server_error",  # noqa: A002 - the field's own name on the wire
    message: str = "upstream fell over",
) -> Behaviour:
    """A 200 whose JSON body is an error object, streamed request or not."""
    return Act(lambda exchange: exchange.body(exchange.wire.error_body(WireError(message, type, code))))


def error_in_stream(
    after_pieces: int = 0,
    code: str | int | None = None,
    type: str | None = None,  # noqa: A002 - the field's own name on the wire
    message: str = "upstream fell over",
) -> Answer:
    """An error event in the stream after so many pieces (a plain request: an error object in a 200)."""

    async def breaks_off(exchange: Exchange) -> None:
        usual = exchange.wire.overloaded()
        said = replace(usual, message=message, type=type or usual.type, code=usual.code if code is None else code)
        if not exchange.request.streamed:
            await exchange.body(exchange.wire.error_body(said))
            return
        await exchange.chunk(exchange.wire.stream_error(said))
        await exchange.end()

    return _broken(after_pieces, breaks_off)


def garbage_in_stream(after_pieces: int = 0) -> Answer:
    """An unreadable piece after so many good ones (a plain request: a body that is no JSON)."""

    async def breaks_off(exchange: Exchange) -> None:
        if not exchange.request.streamed:
            await exchange.body(b'{"id": "chatcmpl-1", "choi')
            return
        await exchange.chunk(exchange.wire.garbage())
        await exchange.chunk(exchange.wire.finish("stop", usage=True) + exchange.wire.done())
        await exchange.end()

    return _broken(after_pieces, breaks_off)


def stall(after_pieces: int = 1) -> Answer:
    """Silence after so many pieces, the connection open (a plain request: after half of the body)."""

    async def breaks_off(exchange: Exchange) -> None:
        if not exchange.request.streamed:
            await exchange.half_body(exchange.wire.plain("Hello"))
        await exchange.hang()

    return _broken(after_pieces, breaks_off)


def cut(after_pieces: int = 1) -> Answer:
    """The connection closes after so many pieces (a plain request: after half of the body)."""

    async def breaks_off(exchange: Exchange) -> None:
        if not exchange.request.streamed:
            await exchange.half_body(exchange.wire.plain("Hello"))
        exchange.cut()

    return _broken(after_pieces, breaks_off)


def _broken(after_pieces: int, breaks_off: Callable[[Exchange], Awaitable[None]]) -> Answer:
    return Answer(_WORDS[:after_pieces], breaks_off=breaks_off)


_WORDS = ("The", " audience", " hears", " only", " so", " many", " words", " of", " the", " play")


def html_page(code: int = 200) -> Behaviour:
    """A web page where JSON was due, as proxies and captive portals send it."""
    page = b"<!doctype html><html><head><title>Just a moment...</title></head><body>Checking</body></html>"
    return Act(lambda exchange: exchange.body(page, code, "text/html; charset=utf-8"))


def thinking_only(text: str = "Let me see.") -> Answer:
    """Reasoning, a finish reason, and no answer."""
    return Answer(thinking=text)


def whitespace_only() -> Answer:
    """An answer of blanks."""
    return Answer((" ", "\n", " \n"))


def no_finish_reason(pieces: Sequence[str] = ("Half", " an", " answer")) -> Answer:
    """A stream that ends in an orderly way without saying why."""
    return Answer(tuple(pieces), finish=None)


def no_done_marker(pieces: Sequence[str] = ("A", " whole", " answer")) -> Answer:
    """A stream with a finish reason and no end marker, as some servers send it."""
    return Answer(tuple(pieces), done_marker=False)


def hang_after_the_finish(pieces: Sequence[str] = ("A", " whole", " answer")) -> Answer:
    """Everything but the end marker, and then nothing."""

    async def trails_off(exchange: Exchange) -> None:
        await exchange.wait(asyncio.Event().wait())

    return Answer(tuple(pieces), trails_off=trails_off)


def cut_after_the_finish(pieces: Sequence[str] = ("A", " whole", " answer")) -> Answer:
    """Everything but the end marker, and then the connection closes without the end of the body."""

    async def trails_off(exchange: Exchange) -> None:
        exchange.cut()

    return Answer(tuple(pieces), trails_off=trails_off)


def refusal(text: str = "I can't help with that.") -> Answer:
    """The model refuses: OpenAI's `refusal` field, Anthropic's stop reason."""
    return Answer(finish="refused", refused=text)


def content_filter(pieces: Sequence[str] = ()) -> Answer:
    """The provider's filter ended the answer, after those pieces."""
    return Answer(tuple(pieces), finish="content_filter")


def content_filter_rejected() -> Behaviour:
    """The provider's filter refused the prompt: Azure and DeepSeek with a 400, Google with a 200 without an answer."""

    async def do(exchange: Exchange) -> None:
        code, body = exchange.wire.prompt_refused()
        if code == 200 and exchange.request.streamed:
            await exchange.start_stream()
            await exchange.chunk(b"data: " + json.dumps(body).encode() + b"\n\n")
            await exchange.end()
        else:
            await exchange.body(body, code)

    return Act(do)


def hang() -> Behaviour:
    """The request is taken and never answered."""
    return Act(lambda exchange: exchange.hang())


def hang_after_headers() -> Behaviour:
    """The headers come, and nothing after them."""

    async def do(exchange: Exchange) -> None:
        await exchange.head(content_type="text/event-stream" if exchange.request.streamed else "application/json")
        await exchange.hang()

    return Act(do)


def reset() -> Behaviour:
    """The connection is reset before any byte."""

    async def do(exchange: Exchange) -> None:
        exchange.reset()

    return Act(do)


def closed_without_answer() -> Behaviour:
    """The connection is closed in an orderly way before any byte."""

    async def do(exchange: Exchange) -> None:
        exchange.cut()

    return Act(do)


BEHAVIOURS: dict[str, Callable[[], Behaviour]] = {
    "answer": lambda: answer("Hello, this is the loopback server speaking.", pause_s=0.05),
    "slow": lambda: answer("Here I am at last.", delay_s=3, pause_s=0.5),
    "tool_call": lambda: tool_call("current_time", {"zone": "UTC"}),
    **{str(code): (lambda code=code: status(code)) for code in (400, 401, 402, 403, 404, 408, 429, 500, 502, 503, 529)},
    **{
        behaviour.__name__: behaviour
        for behaviour in (
            quota_exceeded, context_exceeded, model_unknown, empty_body, empty_stream, empty_answer,
            no_choices, error_object_in_200, error_in_stream, garbage_in_stream, stall, cut, html_page,
            thinking_only, whitespace_only, no_finish_reason, no_done_marker, refusal, content_filter,
            content_filter_rejected, hang, hang_after_headers, reset, closed_without_answer,
        )
    },
}  # fmt: skip
