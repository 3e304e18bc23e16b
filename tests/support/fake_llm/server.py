"""A scriptable LLM server on loopback that answers well, badly, late or not at all.

It speaks the OpenAI wire (`/v1/chat/completions`, Azure's deployments, Groq's and DeepSeek's dialects), Anthropic's
(`/v1/messages`), Google's (`/v1beta/models/...:generateContent`), Mistral's and their model lists, and it can misbehave
below HTTP: reset, cut, stall, hang. By hand, in another process:

    python -m tests.support.fake_llm.server --port 8801 --behaviour hang
"""

import argparse
import asyncio
import base64
import contextlib
import json
import signal
import struct
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from tests.support.fake_llm.addresses import NO_SUCH_HOST_URL, black_hole_url, refusing_url
from tests.support.fake_llm.behaviours import (
    BEHAVIOURS,
    Act,
    Answer,
    Behaviour,
    answer,
    closed_without_answer,
    content_filter,
    content_filter_rejected,
    context_exceeded,
    cut,
    cut_after_the_finish,
    empty_answer,
    empty_body,
    empty_stream,
    error_in_stream,
    error_object_in_200,
    garbage_in_stream,
    gate,
    hang,
    hang_after_headers,
    hang_after_the_finish,
    html_page,
    model_unknown,
    no_choices,
    no_done_marker,
    no_finish_reason,
    quota_exceeded,
    refusal,
    reset,
    stall,
    status,
    thinking_only,
    tool_call,
    whitespace_only,
)
from tests.support.fake_llm.exchange import ClientGone, Exchange, RecordedRequest
from tests.support.fake_llm.wire import AnthropicWire, Dialect, OpenAIWire, Wire
from tests.support.fake_llm.wire_gemini import GeminiWire
from tests.support.fake_llm.wire_mistral import MistralWire

# Tests import the whole fake from here.
__all__ = [
    "BEHAVIOURS",
    "NO_SUCH_HOST_URL",
    "Act",
    "Answer",
    "Behaviour",
    "ClientGone",
    "Exchange",
    "LLMServer",
    "RecordedRequest",
    "answer",
    "black_hole_url",
    "closed_without_answer",
    "content_filter",
    "content_filter_rejected",
    "context_exceeded",
    "cut",
    "cut_after_the_finish",
    "empty_answer",
    "empty_body",
    "empty_stream",
    "error_in_stream",
    "error_object_in_200",
    "garbage_in_stream",
    "gate",
    "hang",
    "hang_after_headers",
    "hang_after_the_finish",
    "html_page",
    "model_unknown",
    "no_choices",
    "no_done_marker",
    "no_finish_reason",
    "quota_exceeded",
    "refusal",
    "refusing_url",
    "reset",
    "stall",
    "status",
    "thinking_only",
    "tool_call",
    "whitespace_only",
]

PNG = b"\x89PNG\r\n\x1a\n a picture, as far as its beginning goes"

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
        models: names in the model lists.
        port: 0 picks a free one.
    """

    def __init__(self, *, api_key: str | None = None, models: Sequence[str] = ("m", "n"), port: int = 0) -> None:
        self.api_key = api_key
        self.models = list(models)
        self.port = port
        self.default: Behaviour = answer()
        self.models_behaviour: Behaviour | None = None
        """Answer to requests for model lists; `None` lists `models`."""
        self.dimensions = 8
        """Size of the vectors."""
        self.max_batch = 1000
        """Texts that one request for vectors may have."""
        self.transcript = "Hello from the recording"
        self.speech = b""
        """Answer to requests for speech."""
        self.picture: dict[str, object] | None = None
        """Answer of the endpoint for images; a small PNG where it is `None`."""
        self.capability_behaviour: Behaviour | None = None
        """Answer to requests for embeddings and transcriptions, in place of vectors and `transcript`."""
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
        """The base URL of the OpenAI wire with the fields that OpenRouter adds."""
        return f"{self.root}/api/v1"

    def script(self, *behaviours: Behaviour) -> None:
        """Answer the next chat requests so, one each; after them comes `default`."""
        self._script.extend(behaviours)

    @property
    def unplayed(self) -> int:
        """Number of scripted behaviours that no request has asked for yet."""
        return len(self._script)

    async def arrival(self, count: int, *, timeout_s: float = 30) -> RecordedRequest:
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
            # A TLS hello on a plain port: respond like a web server, so that the handshake fails at once.
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
        return RecordedRequest(method, split.path, dict(parse_qsl(split.query)), headers, decoded, raw=body)

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
        if request.path.endswith("/audio/speech"):
            return self.capability_behaviour or Act(self._speak)
        if request.path.endswith("/images/generations"):
            return self.capability_behaviour or Act(self._draw)
        if request.path.endswith(("/embeddings", "/audio/transcriptions")):
            return self.capability_behaviour or Act(self._embed if request.json else self._transcribe)
        if request.method == "GET" and request.path.endswith(("/models", "/key")):
            return self.models_behaviour or Act(self._list)
        return status(404, {"error": {"message": f"no route {request.method} {request.path}", "code": None}})

    async def _embed(self, exchange: Exchange) -> None:
        """A vector of each text, whose first number is the length of the text."""
        asked = exchange.request.json
        texts = [asked["input"]] if isinstance(asked["input"], str) else asked["input"]
        if len(texts) > self.max_batch:
            words = f"batch size {len(texts)} > maximum allowed batch size {self.max_batch}"
            await exchange.body({"error": words, "error_type": "Validation"}, 422)
            return
        vectors = [[float(len(text)), *([0.5] * ((asked.get("dimensions") or self.dimensions) - 1))] for text in texts]
        packed = asked.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if packed else vector,
            }
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        await exchange.body({"object": "list", "data": data, "model": asked["model"], "usage": usage})

    async def _speak(self, exchange: Exchange) -> None:
        await exchange.body(self.speech)

    async def _draw(self, exchange: Exchange) -> None:
        await exchange.body(self.picture or {"created": 1, "data": [{"b64_json": base64.b64encode(PNG).decode()}]})

    async def _transcribe(self, exchange: Exchange) -> None:
        await exchange.body({"text": self.transcript})

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
        print(f"{server.url} behaves as {options.behaviour}", flush=True)
        await stopped.wait()
    print(f"{len(server.requests)} chat requests", flush=True)


if __name__ == "__main__":
    asyncio.run(_main())
