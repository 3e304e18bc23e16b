"""Voice messages, from Telegram to the answer."""

from typing import Any

from services.llm.routing.status import ProviderState
from tests.support.bot_harness import FIRST, RETRY, BotHarness, told
from tests.support.fake_llm.server import LLMServer, status
from tests.support.sounds import ogg

BOTH = '{"a": ["w"], "b": ["w"]}'
QUOTED = f"Hello from the recording\n\n{FIRST}"


def speak(stage: BotHarness, seconds: float = 2.0) -> None:
    """Sends a voice message as a user."""
    file_id = stage.telegram.add_file(ogg(seconds), "voice/a.ogg")
    stage.says("", extra={"voice": {"file_id": file_id, "file_unique_id": "u", "duration": int(seconds)}})


def transcriptions(server: LLMServer) -> list[Any]:
    return [request for request in server.other_requests if request.path.endswith("/audio/transcriptions")]


async def test_dead_speech_is_replaced_and_rests_no_chat(empty_stage: BotHarness) -> None:
    """The first provider cannot hear and goes on chatting; the answer stands under the transcript of the second."""
    await empty_stage.start(VOICE_PROVIDERS=BOTH)
    empty_stage.first.capability_behaviour = status(401)
    speak(empty_stage)
    answered = await empty_stage.answer()
    assert answered.text == QUOTED
    assert [entity["type"] for entity in answered.entities] == ["blockquote"]
    assert told(empty_stage.first.requests[0]) == [("user", "Hello from the recording")]
    llm = empty_stage.services.llm
    assert llm.fallback.get_provider_status().providers[0].state is not ProviderState.COOLING
    assert llm.capabilities.fallbacks["voice"].get_provider_status().providers[0].state is ProviderState.COOLING
    totals = empty_stage.services.operators.totals
    assert (await totals.of_speaker("telegram:7", totals.today)).requests >= 2

    # Another answer to the same words asks no one to listen again.
    asked = len(transcriptions(empty_stage.second))
    empty_stage.presses(answered, RETRY)
    assert (await empty_stage.answer(after=answered.id)).text == QUOTED
    assert len(transcriptions(empty_stage.second)) == asked == 1


async def test_no_byte_of_a_recording_leaves_before_its_chat_agrees(empty_stage: BotHarness) -> None:
    """The chat's provider is local, the one that transcribes is not."""
    await empty_stage.start(
        AVAILABLE_PROVIDERS='{"a": ["m"]}', VOICE_PROVIDERS='{"b": ["w"]}', REMOTE_CONSENT="ask", B_REMOTE="true"
    )
    connections = empty_stage.second.connections
    speak(empty_stage)
    question = await empty_stage.seen(lambda message: "Allow" in message.labels)
    await empty_stage.quiet()
    assert empty_stage.second.connections == connections
    empty_stage.presses(question, "Allow")
    assert (await empty_stage.answer()).text == QUOTED
    assert len(transcriptions(empty_stage.second)) == 1


async def test_silence_is_said_and_can_be_tried_again(empty_stage: BotHarness) -> None:
    await empty_stage.start(VOICE_PROVIDERS=BOTH)
    empty_stage.first.transcript = empty_stage.second.transcript = " [BLANK_AUDIO]"
    speak(empty_stage)
    answered = await empty_stage.answer()
    assert answered.text == "Nothing was heard in this recording."
    empty_stage.second.transcript = "Now then"
    empty_stage.presses(answered, RETRY)
    assert (await empty_stage.answer(after=answered.id)).text == f"Now then\n\n{FIRST}"


async def test_an_answer_to_a_voice_message_is_spoken_too(empty_stage: BotHarness) -> None:
    """As the chat chose in /settings; the provider that fails at speech goes on chatting."""
    await empty_stage.start(VOICE_PROVIDERS='{"a": ["w"]}', SPEECH_PROVIDERS='{"a": ["tts"], "b": ["tts"]}')
    empty_stage.first.speech, empty_stage.second.speech = b"no sound", ogg(4)
    await empty_stage.services.chat.preferences.set_voice_replies("telegram:7", "to_voice")
    speak(empty_stage)
    answered = await empty_stage.answer()
    spoken = await empty_stage.seen(lambda message: message.document is not None)
    assert (answered.text, spoken.document) == (QUOTED, ogg(4))
    assert empty_stage.telegram.calls_of("sendVoice")
    # A written message is answered in writing.
    later = await empty_stage.asks("And now?")
    await empty_stage.quiet()
    assert not [each for each in empty_stage.chat().answers() if each.id > later.id]
