"""Transcribes voice messages before the model is asked, and quotes them above its answer.

The recording is part of the stored prompt until its text takes its place, so that a Retry, a consent that comes later
and a crash find it; a transcript that is there already is not asked for again.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, cast

from pydantic_ai.messages import BinaryContent, ModelRequest, ModelRequestPart, TextContent, UserContent, UserPromptPart

from core.errors import BudgetExhausted, ConsentNeeded, NothingHeard, NotTranscribed, ProviderError
from core.messages import Incoming
from services.chat.framing import frame_speech
from services.llm.request import RequestSpec

VOICE = "voice"
"""The purpose of the requests."""
MAX_QUOTED = 1500
"""Characters of a transcript above its answer."""
_TRANSCRIPT = "transcript"
_MARKUP = re.compile(r"([\\`*_\[\]<>#|~$!(){}+.=:&-])")


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
        incoming: its message.
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
    lines = [_MARKUP.sub(r"\\\1", line.strip()) for line in shown.splitlines() if line.strip()]
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
