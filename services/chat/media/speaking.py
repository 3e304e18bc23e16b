"""Voice replies: answers as speech, in chats that chose it."""

import re
from typing import Protocol

import structlog

from core.errors import ProviderError, StorageError
from core.messages import Incoming
from services.chat.reply import Reply, ReplyPhase
from services.llm.request import RequestSpec
from services.preferences import ChatPreferences, PreferenceStore

log = structlog.get_logger()

SPEECH = "speech"
"""The purpose of the requests."""
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
