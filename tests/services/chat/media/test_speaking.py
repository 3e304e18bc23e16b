"""Voice replies: which answers are spoken, and which parts of them."""

from time import process_time

import pytest

from core.errors import AllProvidersFailed, StorageError
from services.chat.media.voice import MAX_SPOKEN, VoiceReplies, to_speech
from services.chat.reply import Reply, ReplyPhase
from services.llm.request import RequestSpec
from services.preferences import ChatPreferences
from tests.support.chat_harness import message


class FakeSynthesizer:
    """Speaks by returning its text, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[str, RequestSpec]] = []

    async def speak(self, text: str, spec: RequestSpec) -> bytes:
        self.asked.append((text, spec))
        if self.error is not None:
            raise self.error
        return text.encode()


class Chosen:
    """The preferences of every chat."""

    def __init__(self, preference: ChatPreferences | StorageError) -> None:
        self.preference = preference

    async def get(self, _: str) -> ChatPreferences:
        if isinstance(self.preference, StorageError):
            raise self.preference
        return self.preference


def answered(text: str = "Hello.", heading: str = "", phase: ReplyPhase = ReplyPhase.COMPLETE) -> Reply:
    reply = Reply()
    reply.heading = heading
    reply.write(text)
    reply.end(phase)
    return reply


async def speak(
    preference: ChatPreferences | StorageError, reply: Reply, synthesizer: FakeSynthesizer | None = None
) -> bytes | None:
    replies = VoiceReplies(synthesizer or FakeSynthesizer(), Chosen(preference), asks_consent=True)
    return await replies.speak(message("Hello?"), reply)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "[a](" * 30_000, "\n" + " " * 100_000 + "x", "- : " * 25_000 + "x", "```" * 30_000, "|-:" * 33_000],
)
def test_no_text_costs_more_than_its_length(text: str) -> None:
    began = process_time()
    to_speech(text)
    assert process_time() - began < 0.5


@pytest.mark.parametrize(
    ("chosen", "heading", "is_spoken"),
    [
        (None, "> Hi\n\n", False),
        ("never", "> Hi\n\n", False),
        ("to_voice", "", False),
        ("to_voice", "> Hi\n\n", True),
        ("always", "", True),
    ],
)
async def test_answers_are_spoken_as_their_chat_chose(chosen: str | None, heading: str, *, is_spoken: bool) -> None:
    preference = ChatPreferences(voice_replies=chosen)
    assert (await speak(preference, answered(heading=heading))) == (b"Hello." if is_spoken else None)


async def test_what_is_no_whole_answer_or_cannot_be_spoken_costs_nothing() -> None:
    always = ChatPreferences(voice_replies="always")
    synthesizer = FakeSynthesizer()
    for reply in (answered(phase=ReplyPhase.STOPPED), answered(phase=ReplyPhase.FAILED), answered("```\ncode\n```")):
        assert await speak(always, reply, synthesizer) is None
    assert not synthesizer.asked
    assert await speak(always, answered(), FakeSynthesizer(AllProvidersFailed(()))) is None
    assert await speak(StorageError("locked"), answered()) is None


@pytest.mark.parametrize("consent", [None, False, True])
async def test_an_answer_is_spoken_remotely_only_where_its_chat_agreed(consent: bool | None) -> None:
    synthesizer = FakeSynthesizer()
    await speak(ChatPreferences(voice_replies="always", remote_consent=consent), answered(), synthesizer)
    assert synthesizer.asked[0][1].local_only is not consent


@pytest.mark.parametrize(
    ("markdown", "spoken"),
    [
        ("# Title\n\nSome **bold** and `code`.", "Title\nSome bold and code."),
        ("See [the page](https://example.org/a?b=c) or https://example.org.", "See the page or"),
        ("- one\n- two\n\n> quoted", "one\ntwo\nquoted"),
        ("Before\n```python\nprint()\n```\nafter", "Before\nafter"),
        ("```\nnever ends", ""),
    ],
)
def test_markup_code_and_addresses_are_not_spoken(markdown: str, spoken: str) -> None:
    assert to_speech(markdown) == spoken


def test_a_long_answer_is_spoken_up_to_the_end_of_a_sentence() -> None:
    spoken = to_speech("A sentence that is somewhat long. " * 200)
    assert MAX_SPOKEN - 50 < len(spoken) <= MAX_SPOKEN
    assert spoken.endswith("long.")
