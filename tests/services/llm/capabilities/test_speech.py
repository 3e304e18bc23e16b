"""Speech of providers, with failover between them, over HTTP on loopback."""

from pathlib import Path

import pytest

from core.errors import AllProvidersFailed
from core.ogg import is_ogg_opus
from services.llm.capabilities.speech import SpeechSynthesizer
from services.llm.request import RequestSpec
from tests.support.api_harness import endpoint
from tests.support.fake_llm.server import LLMServer, status
from tests.support.sounds import ogg, wav

pytestmark = pytest.mark.integration

SPEC = RequestSpec("speech", user="telegram:7", chat="telegram:7")
BOTH = {
    "SPEECH_PROVIDERS": '{"a": ["tts@nova"], "b": ["kokoro"]}',
    "B_PRICES": '{"kokoro": [15, 0]}',
    "B_REMOTE": "true",
}


@pytest.mark.parametrize("broken", [b"", b'{"error": {"message": "no voice"}}', b"<html>", b"RIFF and no more"])
async def test_the_next_provider_speaks_where_one_gives_no_sound(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, broken: bytes
) -> None:
    first.speech, second.speech = broken, ogg(3)
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, **BOTH) as api:
        voice = api.services.llm.capabilities.synthesizer
        assert voice is not None
        assert await voice.speak("Hello there.", SPEC) == ogg(3)
        totals = api.services.operators.totals
        # A character counts as a token.
        assert (await totals.of_speaker("telegram:7", totals.today)).cost_usd == pytest.approx(12 * 15 / 1e6)
        registry = api.services.infra.metrics.registry
        assert registry.get_sample_value("understudy_capability_cooling", {"capability": "speech/a"}) == 1
        answered = {"capability": "speech", "provider": "b", "result": "answered"}
        assert registry.get_sample_value("understudy_capability_requests_total", answered) == 1
        table = await api.services.operators.providers.run("", 1)
        assert "Speech:\n1. a: cooling down" in table
        second.capability_behaviour = status(503)
        with pytest.raises(AllProvidersFailed):
            await voice.speak("Hello there.", SPEC)
    asked = [request.json for request in first.other_requests if request.path.endswith("/audio/speech")]
    assert (asked[0]["model"], asked[0]["voice"], asked[0]["response_format"]) == ("tts", "nova", "opus")
    assert second.other_requests[0].json["voice"] == "alloy"


async def test_speech_in_another_format_is_converted(first: LLMServer, tmp_path: Path) -> None:
    first.speech = wav(0.5)
    async with endpoint(tmp_path, {"a": first.url}, SPEECH_PROVIDERS='{"a": ["tts"]}') as api:
        voice = api.services.llm.capabilities.synthesizer
        assert isinstance(voice, SpeechSynthesizer)
        assert is_ogg_opus(await voice.speak("Hello there.", SPEC))
