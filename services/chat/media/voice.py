"""Voice: transcribes recordings before the model is asked, and speaks answers in chats that chose it.

The recording is part of the stored prompt until its text takes its place, so that a Retry, a consent that comes later
and a crash find it; a transcript that is there already is not asked for again.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, cast

import structlog
from pydantic_ai.messages import BinaryContent, ModelRequest, ModelRequestPart, TextContent, UserContent, UserPromptPart

from core.errors import BudgetExhausted, ConsentNeeded, NothingHeard, NotTranscribed, ProviderError, StorageError
from core.messages import Incoming
from services.chat.prompts import frame_speech
from services.chat.reply import Reply, ReplyPhase
from services.llm.request import RequestSpec
from services.preferences import ChatPreferences, PreferenceStore

log = structlog.get_logger()

VOICE = "voice"
"""The purpose of requests to transcribe."""
MAX_QUOTED = 1500
"""Characters of a transcript above its answer."""
_TRANSCRIPT = "transcript"
_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|~$!(){}+.=:&-])")

SPEECH = "speech"
"""The purpose of requests to speak."""
MAX_SPOKEN = 3000
"""Characters of an answer that are spoken: four minutes; servers take 4,096."""
LOOKED_AT = 65_536
"""Characters of an answer from which the spoken ones are taken."""
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_LINK = re.compile(r"!?\[([^\[\]\n]{0,300})\]\([^()\n]{0,2000}\)")
"""A link or an image. No part of it may begin another one, so that brackets without end cost their length only."""
_URL = re.compile(r"https?://\S+")
_MARKUP = re.compile(r"(?m)^[-:| \t]{3,}$|^[ \t]{0,3}(?:#{1,6}|>|[-*+]|\|)[ \t]*|[*_`~|]+")
_SENTENCE_END = re.compile(r"[.!?…。！？]\s|\n")


class SpeechToText(Protocol):
    """Transcribes voice messages."""

    async def hear(self, audio: bytes, spec: RequestSpec) -> str:
        """Returns the text of a recording; empty where nothing was heard. Raises ProviderError."""
        ...


def has_recording(prompt: ModelRequest) -> bool:
    """Returns whether a prompt has a recording that is not transcribed yet."""
    return any(isinstance(item, BinaryContent) and item.is_audio for item in _items(prompt))


async def transcribe(
    prompt: ModelRequest, incoming: Incoming, transcriber: SpeechToText | None, spec: RequestSpec
) -> ModelRequest:
    """Returns a prompt with the text of each recording in its place.

    Args:
        prompt: has a recording.
        incoming: message with the recording.
        transcriber: None where no provider for that is configured.
        spec: the facts of the request.

    Raises:
        NothingHeard: no recording has speech in it.
        NotTranscribed: no provider answered.
        ConsentNeeded: only remote providers could, and the chat has not agreed to them.
        BudgetExhausted: a budget is used up.
    """
    if transcriber is None:
        raise NotTranscribed(is_set_up=False)
    parts: list[ModelRequestPart] = []
    heard = False
    for part in prompt.parts:
        if not isinstance(part, UserPromptPart) or isinstance(part.content, str):
            parts.append(part)
            continue
        content: list[UserContent] = []
        for item in part.content:
            if not isinstance(item, BinaryContent) or not item.is_audio:
                content.append(item)
            elif text := await _hear(transcriber, item.data, spec):
                heard = True
                content.append(
                    TextContent(
                        frame_speech(incoming, text, content[-1] if content else None), metadata={_TRANSCRIPT: text}
                    )
                )
        parts.append(replace(part, content=content))
    if not heard:
        raise NothingHeard
    return replace(prompt, parts=parts)


def quote_transcripts(prompt: ModelRequest) -> str:
    """Returns the transcripts of a prompt as a quotation in Markdown, or nothing where it has none."""
    texts = [
        text
        for item in _items(prompt)
        if isinstance(item, TextContent) and isinstance(item.metadata, dict)
        # Metadata is arbitrary JSON.
        if isinstance(text := cast("dict[str, object]", item.metadata).get(_TRANSCRIPT), str)
    ]
    if not texts:
        return ""
    whole = "\n".join(texts)
    shown = whole if len(whole) <= MAX_QUOTED else whole[:MAX_QUOTED].rstrip() + "…"
    lines = [_MARKDOWN.sub(r"\\\1", line.strip()) for line in shown.splitlines() if line.strip()]
    return "".join(f"> {line}\n" for line in lines) + "\n"


async def _hear(transcriber: SpeechToText, audio: bytes, spec: RequestSpec) -> str:
    try:
        return await transcriber.hear(audio, spec)
    except (ConsentNeeded, BudgetExhausted):
        raise
    except ProviderError as error:
        raise NotTranscribed(is_set_up=True) from error


def _items(prompt: ModelRequest) -> Sequence[UserContent]:
    parts = [part.content for part in prompt.parts if isinstance(part, UserPromptPart)]
    return [item for content in parts if not isinstance(content, str) for item in content]


class TextToSpeech(Protocol):
    """Synthesises speech."""

    async def speak(self, text: str, spec: RequestSpec) -> bytes:
        """Returns a text as OGG/Opus. Raises ProviderError."""
        ...


class VoiceReplies:
    """Speaks the answers of chats that chose it.

    Args:
        asks_consent: whether a chat must agree before its answers go to remote providers.
    """

    def __init__(self, synthesizer: TextToSpeech, preferences: PreferenceStore, *, asks_consent: bool) -> None:
        self._synthesizer = synthesizer
        self._preferences = preferences
        self._asks_consent = asks_consent

    async def speak(self, incoming: Incoming, reply: Reply) -> bytes | None:
        """Returns an answer as a voice message; None where its chat wants none, or no provider speaks.

        A failure is only logged: the answer itself is there.
        """
        if reply.phase is not ReplyPhase.COMPLETE:
            return None
        try:
            preference = await self._preferences.get(incoming.key.chat_ref)
            text = to_speech(reply.text) if _is_wanted(preference, reply) else ""
            if not text:
                return None
            is_local_only = self._asks_consent and not preference.remote_consent
            spec = RequestSpec(SPEECH, user=incoming.user_ref, chat=incoming.key.chat_ref, local_only=is_local_only)
            return await self._synthesizer.speak(text, spec)
        except (ProviderError, StorageError) as error:
            log.info("speech.failed", error=type(error).__name__)
            return None


def to_speech(markdown: str) -> str:
    """Returns the speakable part of an answer: no code, addresses or markup, cut at the end of a sentence."""
    text = _URL.sub("", _LINK.sub(r"\1", _CODE.sub("", markdown[:LOOKED_AT])))
    text = re.sub(r"\n{2,}", "\n", _MARKUP.sub("", text)).strip()
    if len(text) <= MAX_SPOKEN:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text[:MAX_SPOKEN])]
    return text[: ends[-1] if ends else MAX_SPOKEN].strip()


def _is_wanted(preference: ChatPreferences, reply: Reply) -> bool:
    match preference.voice_replies:
        case "always":
            return True
        case "to_voice":
            # Its transcript stands above the answer.
            return bool(reply.heading)
        case _:
            return False
