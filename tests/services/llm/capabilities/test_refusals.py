"""Errors of servers that transcribe, speak and draw: each is blamed as the same error of a chat would be."""

# ruff: noqa: E501 - a row a line

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.config.providers import ProviderKind as Kind
from core.errors import ContentRefused, RequestRejected
from core.redis.client import open_redis
from services.files.sandbox import SOUND_LIMITS, FileRefused, Sandbox, Task
from services.llm.capabilities.images import ImageGenerator
from services.llm.capabilities.speech import SpeechSynthesizer
from services.llm.capabilities.transcription import Recording, Transcriber
from services.llm.providers.builder import ModelBuilder
from services.llm.request import RequestSpec
from tests.support.fake_llm.exchange import Exchange
from tests.support.fake_llm.providers import provider_at
from tests.support.fake_llm.server import PNG, Act, Behaviour, LLMServer, status
from tests.support.llm_harness import LLMHarness, bench, provider
from tests.support.sounds import ogg, opus, wav

pytestmark = pytest.mark.integration

COMPATIBLE, OPENAI, GROQ, GOOGLE, ROUTER = Kind.OPENAI_COMPATIBLE, Kind.OPENAI, Kind.GROQ, Kind.GOOGLE, Kind.OPENROUTER
HEAR, SPEAK, DRAW = "hear", "speak", "draw"
OPERATOR_S, GONE_S, LOADING_S, DOWN_S, UNCLEAR_S = 1800, 1800, 10, 300, 300
NONE_S = 0
"""The next provider is asked, and none cools down."""
FILTERED = None
"""The refusal surfaces."""


def openai(message: str, code: str | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def google(code: int, message: str, name: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": name}}


ROWS: list[tuple[str, Kind, str, int, Mapping[str, Any] | bytes, float | None]] = [
    # Refusals over the key or the account, which an operator has to resolve at the provider.
    ("OpenAI: key", OPENAI, HEAR, 401, openai("Incorrect API key provided: sk-x.", "invalid_api_key"), OPERATOR_S),
    ("OpenAI: quota", OPENAI, HEAR, 429, openai("You exceeded your current quota, please check your plan and billing details.", "insufficient_quota", "insufficient_quota"), OPERATOR_S),
    ("speaches: no key", COMPATIBLE, HEAR, 403, {"detail": "API key required. Please provide an API key using the Authorization header with Bearer scheme."}, OPERATOR_S),
    ("Groq: terms", GROQ, SPEAK, 400, openai("The model `playai-tts` requires terms acceptance. Please have the org admin accept the terms.", "model_terms_required"), OPERATOR_S),
    ("OpenAI: unverified", OPENAI, DRAW, 403, openai("Your organization must be verified to use the model `gpt-image-1`. Please go to the settings and click on Verify Organization."), OPERATOR_S),
    ("OpenAI: hard limit", OPENAI, DRAW, 400, openai("Billing hard limit has been reached.", "billing_hard_limit_reached", "image_generation_user_error"), OPERATOR_S),
    ("Google: region", GOOGLE, DRAW, 400, google(400, "Image generation is not available in your country.", "FAILED_PRECONDITION"), OPERATOR_S),
    ("whisper.cpp: path", COMPATIBLE, HEAR, 404, b"File Not Found (/v1/audio/transcriptions)", OPERATOR_S),
    # The model.
    ("OpenAI: project", OPENAI, HEAR, 403, openai("Project `proj_x` does not have access to model `whisper-1`", "model_not_found"), GONE_S),
    ("speaches: model", COMPATIBLE, HEAR, 404, {"detail": "Model 'Systran/faster-whisper-small' is not installed locally. You can download the model using `POST /v1/models`"}, GONE_S),
    ("speaches: task", COMPATIBLE, SPEAK, 404, {"detail": "Model 'x' is not supported. If you think this is a mistake, please open an issue."}, GONE_S),
    ("LocalAI: model", COMPATIBLE, HEAR, 500, {"error": {"code": 500, "message": "could not load model - all backends returned error: [whisper]: could not load model: rpc error: code = Unknown desc = stat /models/ggml.bin: no such file", "type": ""}}, GONE_S),
    ("vLLM: task", COMPATIBLE, HEAR, 400, {"error": {"message": "The model does not support Transcriptions API", "type": "BadRequestError", "code": 400}}, GONE_S),
    ("Azure: task", Kind.AZURE_OPENAI, HEAR, 400, {"error": {"code": "OperationNotSupported", "message": "The transcription operation does not work with the specified model, gpt-4o. Please choose different model and try again."}}, GONE_S),
    ("Mistral: model", Kind.MISTRAL, HEAR, 400, {"object": "error", "message": "Invalid model: voxtral-x", "type": "invalid_model", "code": "1500"}, GONE_S),
    ("OpenRouter: task", ROUTER, DRAW, 404, {"error": {"message": "No endpoints found that support the requested output modalities: image, text", "code": 404}}, GONE_S),
    # Loading, limits, and servers that are down.
    ("Hugging Face: loading", COMPATIBLE, HEAR, 503, {"error": "Model openai/whisper-large-v3 is currently loading", "estimated_time": 20.0}, LOADING_S),
    ("Groq: rate", GROQ, HEAR, 429, openai("Rate limit reached for model `whisper-large-v3` on seconds of audio per hour (ASPH): Limit 7200, Used 7100, Requested 200. Please try again in 3m0s. Need more tokens? Upgrade at https://groq.example/settings/billing", "rate_limit_exceeded", "seconds"), 42),
    ("Google: rate", GOOGLE, DRAW, 429, google(429, "Resource has been exhausted (e.g. check quota).", "RESOURCE_EXHAUSTED"), 42),
    ("Anthropic's status", COMPATIBLE, SPEAK, 529, {"error": {"message": "Overloaded"}}, DOWN_S),
    ("LocalAI: crash", COMPATIBLE, HEAR, 500, {"error": {"code": 500, "message": "rpc error: code = Unavailable desc = error reading from server: EOF", "type": ""}}, DOWN_S),
    ("Kokoro: memory", COMPATIBLE, SPEAK, 500, {"detail": {"error": "processing_error", "message": "CUDA out of memory", "type": "server_error"}}, DOWN_S),
    # Too long for this one; another may take it.
    ("OpenAI: size", OPENAI, HEAR, 413, openai("413: Maximum content size limit (26214400) exceeded (26500000 bytes read)", None, "server_error"), NONE_S),
    ("OpenAI: length", OPENAI, HEAR, 400, openai("audio duration 1500.1 seconds is longer than 1400 seconds which is the maximum for this model", "invalid_value"), NONE_S),
    ("OpenAI: text", OPENAI, SPEAK, 400, openai("[{'type': 'string_too_long', 'loc': ('body', 'input'), 'msg': 'String should have at most 4096 characters', 'input': 'Hello'}]"), NONE_S),
    # The request's fault or the server's: the other one's answer tells.
    ("Groq: file", GROQ, HEAR, 400, openai("could not process file - is it a valid media file?"), UNCLEAR_S),
    ("Kokoro: voice", COMPATIBLE, SPEAK, 400, {"detail": {"error": "validation_error", "message": "Voice 'x' not found. Available voices: af_bella", "type": "invalid_request_error"}}, UNCLEAR_S),
    ("a proxy's page", COMPATIBLE, HEAR, 403, b"<html><title>403 Forbidden</title>", UNCLEAR_S),
    # No other provider is asked after the refusal of a content filter.
    ("OpenAI: filter", OPENAI, DRAW, 400, openai("Your request was rejected by the safety system.", "moderation_blocked", "image_generation_user_error"), FILTERED),
    ("Azure: filter", Kind.AZURE_OPENAI, DRAW, 400, {"error": {"code": "contentFilter", "message": "Your task failed as a result of our safety system."}}, FILTERED),
    ("xAI: filter", COMPATIBLE, DRAW, 400, {"code": "Client specified an invalid argument", "error": "Generated image rejected by content moderation."}, FILTERED),
    ("OpenRouter: flagged", ROUTER, DRAW, 403, {"error": {"message": "Input was flagged", "code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "..."}}}, FILTERED),
]  # fmt: skip
WAV = wav(0.1)
SPEC = RequestSpec("test", user="telegram:7")


async def convert(sound: bytes) -> bytes | None:
    """Converts to MP3, as the daemon does."""
    try:
        return (await Sandbox().run(Task.SOUND, sound, SOUND_LIMITS, {"longest_s": 60, "target": "mp3"})).body
    except FileRefused:
        return None


@asynccontextmanager
async def replica(first: LLMServer, second: LLMServer | None, kind: Kind = COMPATIBLE) -> AsyncIterator[LLMHarness]:
    """Opens a fallback over one or both servers, the first of that kind."""
    redis = open_redis(None)
    leading = provider_at(first, kind, id="first", models=("m",), timeout_s=5.0)
    others = [provider("second", second.url, models=("m",))] if second is not None else []
    async with bench(redis, [leading, *others]) as opened:
        yield opened
    await redis.aclose()


async def ask(opened: LLMHarness, act: str, sound: bytes = WAV) -> object:
    """Makes one request of a capability."""
    builder = ModelBuilder()
    try:
        match act:
            case "hear":
                return (
                    await Transcriber(opened.fallback, builder, convert).transcribe(Recording(sound, "voice.ogg"), SPEC)
                ).text
            case "speak":
                return await SpeechSynthesizer(opened.fallback, builder, convert).speak("Hello", SPEC)
            case _:
                return (await ImageGenerator(opened.fallback, builder).draw("A fox", SPEC)).data
    finally:
        await builder.aclose()


@pytest.mark.parametrize(
    ("kind", "act", "code", "body", "rest_s"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
async def test_a_refusal_is_blamed_as_in_a_chat(
    first: LLMServer,
    second: LLMServer,
    kind: Kind,
    act: str,
    code: int,
    body: Mapping[str, Any] | bytes,
    rest_s: float | None,
) -> None:
    refusing = status(code, body, {"Retry-After": "42"} if code == 429 else None)
    first.capability_behaviour = first.default = refusing
    second.speech = ogg(3)
    async with replica(first, second, kind) as opened:
        if rest_s is FILTERED:
            with pytest.raises(ContentRefused):
                await ask(opened, act)
            assert second.connections == 0
            return
        assert await ask(opened, act) == {HEAR: second.transcript, SPEAK: ogg(3), DRAW: PNG}[act]
        assert opened.cooling() == ({"first": pytest.approx(rest_s, abs=1)} if rest_s else {})


VOICE = opus(0.2)


def is_mp3(exchange: Exchange) -> bool:
    raw = exchange.request.raw
    return b"audio/mpeg" in raw and b'filename="voice.mp3"' in raw and b"OggS" not in raw and b"\xff\xf3" in raw


def reading_mp3(code: int, body: Mapping[str, Any]) -> Behaviour:
    """Refuses everything else than MP3."""

    async def do(exchange: Exchange) -> None:
        heard = is_mp3(exchange)
        await exchange.body({"text": " from\n the first\n"} if heard else body, 200 if heard else code)

    return Act(do)


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (400, {"error": "failed to read audio data"}),  # whisper.cpp
        (415, {"detail": "Failed to decode audio. The provided file type is not supported."}),  # speaches
        (400, openai("Invalid file format. Supported formats: ['flac', 'mp3', 'wav']")),
        (500, {"error": {"code": 500, "message": "rpc error: code = Unknown desc = exit status 183", "type": ""}}),
    ],
)
async def test_a_server_that_reads_no_opus_gets_mp3_from_then_on(
    first: LLMServer, second: LLMServer, code: int, body: Mapping[str, Any]
) -> None:
    first.capability_behaviour = reading_mp3(code, body)
    async with replica(first, second) as opened:
        assert await ask(opened, HEAR, VOICE) == "from the first"
        assert opened.cooling() == {}
        asked = len(first.other_requests)
        assert await ask(opened, HEAR, VOICE) == "from the first"
        assert len(first.other_requests) == asked + 1, "remembered"
        assert second.connections == 0


async def test_a_recording_that_a_server_refuses_in_both_forms_is_asked_of_the_next_as_it_is(
    first: LLMServer, second: LLMServer
) -> None:
    first.capability_behaviour = status(400, {"error": "something else"})
    async with replica(first, second) as opened:
        assert await ask(opened, HEAR, VOICE) == second.transcript
        assert [b"audio/mpeg" in request.raw for request in first.other_requests] == [False, True]
        assert [VOICE in request.raw for request in second.other_requests] == [True]
        assert opened.cooling() == {"first": pytest.approx(UNCLEAR_S, abs=1)}


@pytest.mark.parametrize("sound", [ogg(2), WAV], ids=["damaged", "no Opus"])
async def test_a_recording_that_cannot_be_converted_is_sent_as_it_is(first: LLMServer, sound: bytes) -> None:
    first.capability_behaviour = status(400, {"error": "failed to read audio data"})
    async with replica(first, None) as opened:
        with pytest.raises(RequestRejected):
            await ask(opened, HEAR, sound)
        assert all(sound in request.raw for request in first.other_requests)
        assert opened.cooling() == {}


@pytest.mark.parametrize(
    "silent",
    [
        Act(lambda exchange: exchange.body({"text": ""})),
        status(400, openai("Audio file is too short. Minimum audio length is 0.1 seconds.", "audio_too_short")),
        status(400, openai("Audio file is too short. Minimum audio length is 0.01 seconds.")),
    ],
    ids=["empty", "OpenAI", "Groq"],
)
async def test_silence_is_no_reason_to_send_another_form(
    first: LLMServer, second: LLMServer, silent: Behaviour
) -> None:
    first.capability_behaviour = second.capability_behaviour = silent
    async with replica(first, second) as opened:
        assert not await ask(opened, HEAR, VOICE)
        assert opened.cooling() == {}
    assert (len(first.other_requests), len(second.other_requests)) == (1, 1)
