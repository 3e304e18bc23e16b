"""A scriptable LLM server on loopback that answers well, badly, late or not at all.

It speaks the OpenAI wire (`/v1/chat/completions`, Azure's deployments, Groq's and DeepSeek's dialects), Anthropic's
(`/v1/messages`), Google's (`/v1beta/models/...:generateContent`), Mistral's and their model lists, and it can misbehave
below HTTP: reset, cut, stall, hang. By hand, in another process:

    python -m tests.support.fake_llm.server --port 8801 --behaviour hang
"""

import argparse
import asyncio
import contextlib
import json
import re
import signal
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import parse_qsl, urlsplit

from tests.support.fake_llm.wire import AnthropicWire, Dialect, OpenAIWire, Wire, WireError
from tests.support.fake_llm.wire_gemini import GeminiWire
from tests.support.fake_llm.wire_mistral import MistralWire

NO_SUCH_HOST_URL = "http://llm.understudy.invalid/v1"
"""An address whose name does not resolve: `.invalid` is reserved for that (RFC 2606)."""


@dataclass(slots=True)
class RecordedRequest:
    """A request as it arrived; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    json: Any
    """The decoded body, `None` where there was none or it was not JSON."""
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client hung up before its answer was complete."""

    @property
    def streamed(self) -> bool:
        return self.path.endswith(":streamGenerateContent") or bool(self.json and self.json.get("stream"))

    @property
    def model(self) -> str:
        """The model that was asked: from the body, for Azure and Google from the path."""
        in_path = re.search(r"/deployments/([^/]+)/|/models/([^/:]+):", self.path)
        return in_path[1] or in_path[2] if in_path else (self.json or {}).get("model", "")

    @property
    def bearer(self) -> str | None:
        """The key, wherever this wire carries it."""
        authorization = self.headers.get("authorization", "")
        if authorization.lower().startswith("bearer "):
            return authorization[7:]
        return next(
            (self.headers[name] for name in ("x-api-key", "api-key", "x-goog-api-key") if name in self.headers), None
        )


class ClientGone(Exception):
    """The client hung up: nothing more can be said to it."""


class Exchange:
    """One request and the means to answer it, well or badly."""

    def __init__(
        self, request: RecordedRequest, wire: Wire, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.request = request
        self.wire = wire
        self.keep_alive = True
        self._reader = reader
        self._writer = writer

    async def head(
        self,
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Send the status line and headers; without a length the body follows in chunks."""
        lines = [f"HTTP/1.1 {status} Scripted", f"content-type: {content_type}", "x-request-id: req_1"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
        await self.raw("\r\n".join([*lines, "", ""]).encode())

    async def raw(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def chunk(self, data: bytes) -> None:
        if data:
            await self.raw(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def body(
        self,
        data: bytes | Mapping[str, Any],
        status: int = 200,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a whole plain response."""
        encoded = data if isinstance(data, bytes) else json.dumps(data).encode()
        await self.head(status, content_type, headers, len(encoded))
        await self.raw(encoded)

    async def half_body(self, data: Mapping[str, Any]) -> None:
        """Send the headers and the first half of a plain response."""
        encoded = json.dumps(data).encode()
        await self.head(length=len(encoded))
        await self.raw(encoded[: len(encoded) // 2])

    async def start_stream(self) -> None:
        await self.head(content_type="text/event-stream")

    async def fault(self, status: int, fault: WireError, headers: Mapping[str, str] | None = None) -> None:
        await self.body(self.wire.error_body(fault), status, headers=headers)

    async def wait(self, awaitable: Awaitable[object]) -> None:
        """Wait for something, but no longer than the client does."""
        waited = asyncio.ensure_future(awaitable)
        gone = asyncio.ensure_future(self._reader.read(1))
        try:
            done, _ = await asyncio.wait({waited, gone}, return_when=asyncio.FIRST_COMPLETED)
            if waited not in done:
                raise ClientGone
        finally:
            for task in (waited, gone):
                task.cancel()
            await asyncio.gather(waited, gone, return_exceptions=True)

    async def hang(self) -> None:
        """Say nothing until the client hangs up."""
        await self.wait(asyncio.Event().wait())

    def cut(self) -> None:
        """Close the connection in an orderly way, wherever the answer stands."""
        self.keep_alive = False

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.keep_alive = False


class Behaviour(Protocol):
    """How one request is answered."""

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
    """What happens instead of the end, streamed or plain."""
    trails_off: Callable[[Exchange], Awaitable[None]] | None = None
    """What happens instead of the end marker of a stream."""

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
        await self._say_pieces(exchange)
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

    async def _say_pieces(self, exchange: Exchange) -> None:
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
    """A 200 whose stream ends before it says anything (a plain request gets an empty message)."""

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


_NAMING = "You name conversations."
_CHAT_PATHS = ("/chat/completions", "/messages", ":generateContent", ":streamGenerateContent")
_DIALECTS = {
    "api": Dialect.OPENROUTER,  # /api/v1/...
    "/openai/v1/chat/completions": Dialect.GROQ,
    "chat": Dialect.DEEPSEEK,  # /chat/completions, without a version before it
}


class LLMServer:
    """The server. `stop` and `start` keep the port, so that a provider may go and come back.

    Args:
        api_key: when set, requests without it get a 401.
        models: what the model lists name.
        port: 0 picks a free one.
    """

    def __init__(self, *, api_key: str | None = None, models: Sequence[str] = ("m", "n"), port: int = 0) -> None:
        self.api_key = api_key
        self.models = list(models)
        self.port = port
        self.default: Behaviour = answer()
        self.models_behaviour: Behaviour | None = None
        """How model lists are answered; `None` lists `models`."""
        self.requests: list[RecordedRequest] = []
        """The chat requests, in the order of their arrival."""
        self.names: list[RecordedRequest] = []
        """Requests for the name of a conversation, which come by themselves after an answer, if `naming` is set."""
        self.naming: Behaviour | None = None
        self.other_requests: list[RecordedRequest] = []
        """Everything else: model lists, key checks."""
        self.connections = 0
        self._script: deque[Behaviour] = deque()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._arrived = asyncio.Condition()

    @property
    def root(self) -> str:
        """The address without a path: an Azure endpoint, an Anthropic base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The base URL of the OpenAI wire."""
        return f"{self.root}/v1"

    @property
    def mistral_url(self) -> str:
        """The base URL below which Mistral's wire is spoken; its paths are the same as OpenAI's."""
        return f"{self.root}/mistral"

    @property
    def openrouter_url(self) -> str:
        """The base URL below which the OpenAI wire carries what OpenRouter adds to it."""
        return f"{self.root}/api/v1"

    def script(self, *behaviours: Behaviour) -> None:
        """Answer the next chat requests so, one each; after them comes `default`."""
        self._script.extend(behaviours)

    @property
    def unplayed(self) -> int:
        """How many scripted behaviours no request has asked for yet."""
        return len(self._script)

    async def arrival(self, count: int, *, timeout_s: float = 5) -> RecordedRequest:
        """Wait until so many chat requests have come, and return that one."""
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: len(self.requests) >= count)
        return self.requests[count - 1]

    async def start(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A plain function, so that the task is ours to cancel and to wait for.
        if self._server is None or not self._server.is_serving():
            # It had come in before the port was closed.
            writer.transport.abort()
            return
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Also of one that is cancelled before it has begun.
        task.add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request: RecordedRequest | None = None
        try:
            while (request := await self._read(reader, writer)) is not None:
                exchange = Exchange(request, self._wire(request), reader, writer)
                await (await self._behaviour(exchange)).play(exchange)
                if not exchange.keep_alive:
                    return
        except (ClientGone, ConnectionError, asyncio.IncompleteReadError):
            if request is not None:
                request.abandoned.set()
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> RecordedRequest | None:
        first = await reader.read(1)
        if not first:
            return None
        if not first.isalpha():
            # A TLS hello on a plain port: say what a web server says, so that the handshake fails at once.
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return None
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.rstrip("\r\n").split("\r\n")
        method, target, _ = line.split(" ")
        pairs = (header.split(":", 1) for header in rest)
        headers = {name.strip().lower(): value.strip() for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        split = urlsplit(target)
        decoded = None
        if body:
            with contextlib.suppress(ValueError):
                decoded = json.loads(body)
        return RecordedRequest(method, split.path, dict(parse_qsl(split.query)), headers, decoded)

    def _wire(self, request: RecordedRequest) -> Wire:
        if "anthropic-version" in request.headers:
            return AnthropicWire(request.model)
        if request.path.startswith("/v1beta/"):
            return GeminiWire(request.model)
        if request.path.startswith("/mistral/"):
            return MistralWire(request.model)
        options = (request.json or {}).get("stream_options") or {}
        root = request.path.split("/")[1]
        dialect = _DIALECTS.get(request.path, _DIALECTS.get(root, Dialect.PLAIN))
        return OpenAIWire(request.model, include_usage=bool(options.get("include_usage")), dialect=dialect)

    async def _behaviour(self, exchange: Exchange) -> Behaviour:
        request = exchange.request
        is_chat = request.method == "POST" and request.path.endswith(_CHAT_PATHS)
        if self.naming is not None and is_chat and _NAMING in str((request.json or {}).get("messages")):
            self.names.append(request)
            return self.naming
        if is_chat:
            async with self._arrived:
                self.requests.append(request)
                self._arrived.notify_all()
        else:
            self.other_requests.append(request)
        if self.api_key is not None and request.bearer != self.api_key:
            return Act(lambda exchange: exchange.fault(*exchange.wire.key_refused()))
        if is_chat:
            return self._script.popleft() if self._script else self.default
        if request.method == "GET" and request.path.endswith(("/models", "/key")):
            return self.models_behaviour or Act(self._list)
        return status(404, {"error": {"message": f"no route {request.method} {request.path}", "code": None}})

    async def _list(self, exchange: Exchange) -> None:
        if exchange.request.path.endswith("/key"):
            await exchange.body({"data": {"label": "sk-or-v1-...", "usage": 0, "limit": None}})
            return
        if isinstance(exchange.wire, AnthropicWire):
            await self._anthropic_page(exchange)
            return
        if isinstance(exchange.wire, GeminiWire):
            await self._gemini_page(exchange)
            return
        rows = [{"id": name, "object": "model", "created": 1_800_000_000, "owned_by": "t"} for name in self.models]
        await exchange.body({"object": "list", "data": rows})

    async def _gemini_page(self, exchange: Exchange) -> None:
        """A page of at most `pageSize` models (50 unless asked for more, as Google does), from `pageToken` on."""
        query = exchange.request.query
        start = int(query.get("pageToken", "0"))
        end = start + int(query.get("pageSize", "50"))
        rows = [
            {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": ["generateContent"]}
            for name in self.models[start:end]
        ]
        more = {"nextPageToken": str(end)} if end < len(self.models) else {}
        await exchange.body({"models": rows, **more})

    async def _anthropic_page(self, exchange: Exchange) -> None:
        """A page of at most `limit` models after `after_id`."""
        query = exchange.request.query
        after = query.get("after_id")
        start = self.models.index(after) + 1 if after in self.models else 0
        names = self.models[start : start + int(query.get("limit", "20"))]
        rows = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2027-01-15T08:00:00Z"} for name in names
        ]
        more = start + len(names) < len(self.models)
        first, last = (names[0], names[-1]) if names else (None, None)
        await exchange.body({"data": rows, "has_more": more, "first_id": first, "last_id": last})


@contextlib.contextmanager
def refusing_url() -> Iterator[str]:
    """A base URL on a port that refuses connections: held, so that nobody else can listen on it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/v1"


@contextlib.asynccontextmanager
async def black_hole_url() -> AsyncIterator[str]:
    """A base URL where connecting hangs: a listener whose queue is full, so that the kernel drops what comes."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loop.sock_connect(filler, address), 0.05)
        yield f"http://127.0.0.1:{address[1]}/v1"


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


async def _main() -> None:
    parser = argparse.ArgumentParser(description="A loopback LLM server for trying failover by hand.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--behaviour", choices=sorted(BEHAVIOURS), default="answer")
    parser.add_argument("--models", default="m,n", help="comma-separated names for the model list")
    parser.add_argument("--api-key", default=None)
    options = parser.parse_args()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    server = LLMServer(api_key=options.api_key, models=options.models.split(","), port=options.port)
    server.default = BEHAVIOURS[options.behaviour]()
    async with server:
        print(f"{server.url} behaves as {options.behaviour}", flush=True)  # noqa: T201 - a command speaks to its user
        await stopped.wait()
    print(f"{len(server.requests)} chat requests", flush=True)  # noqa: T201 - the same


if __name__ == "__main__":
    asyncio.run(_main())
