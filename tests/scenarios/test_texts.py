"""Long and odd texts in both directions."""

import pytest

from tests.support.bot_harness import FIRST, BotHarness, told
from tests.support.fake_llm.server import answer
from tests.support.fake_telegram.chats import Message, units

ASTRAL = "𝒜" * 4096


async def test_4096_astral_characters_round_trip(stage: BotHarness) -> None:
    """Split by Telegram's count of UTF-16 units, without a character lost or doubled."""
    stage.first.default = answer(pieces=[ASTRAL[:1000], ASTRAL[1000:]])
    await stage.asks(ASTRAL)
    assert told(stage.first.requests[0]) == [("user", ASTRAL)]
    texts = stage.chat().texts()
    assert "".join(texts) == ASTRAL
    assert [units(text) for text in texts] == [4096, 4096]


async def test_long_answer_is_split_between_paragraphs(stage: BotHarness) -> None:
    """The buttons are under the last message only."""
    paragraphs = [f"Paragraph {number}. " + "Some words about it. " * 20 for number in range(30)]
    stage.first.default = answer("\n\n".join(paragraphs))
    await stage.asks("Tell me everything.")
    messages = stage.chat().answers()
    assert len(messages) > 2
    assert "\n\n".join(message.text for message in messages) == "\n\n".join(part.strip() for part in paragraphs)
    assert all(not message.buttons for message in messages[:-1])
    await stage.asks("And then?")
    assert told(stage.first.requests[1])[1] == ("assistant", "\n\n".join(paragraphs))


async def test_split_code_block_stays_code(stage: BotHarness) -> None:
    lines = [f"print({number})  # one of many lines" for number in range(300)]
    stage.first.default = answer("Here it is:\n\n```python\n" + "\n".join(lines) + "\n```")
    await stage.asks("Write me a program.")
    messages = stage.chat().answers()
    assert len(messages) > 2
    assert all(any(entity["type"] == "pre" and entity["language"] == "python" for entity in message.entities)
               for message in messages)  # fmt: skip
    assert "\n".join(message.text for message in messages) == "Here it is:\n\n" + "\n".join(lines)


def marked(message: Message) -> list[tuple[str, str]]:
    """Return the formatted parts with their kinds."""
    encoded = message.text.encode("utf-16-le")
    return [
        (entity["type"], encoded[2 * entity["offset"] : 2 * (entity["offset"] + entity["length"])].decode("utf-16-le"))
        for entity in message.entities
    ]


async def test_markdown_becomes_entities(stage: BotHarness) -> None:
    """Offsets count UTF-16 units, also after an emoji."""
    stage.first.default = answer(
        "# Tea 🍵\n\nIt is **hot** and _good_, see `tea --help` or [a page](https://tea.example)."
    )
    message = await stage.asks("Tell me about tea.")
    assert message.text == "Tea 🍵\n\nIt is hot and good, see tea --help or a page."
    assert set(marked(message)) >= {
        ("bold", "hot"),
        ("italic", "good"),
        ("code", "tea --help"),
        ("text_link", "a page"),
    }
    assert message.link_preview == {"is_disabled": True}


@pytest.mark.parametrize(
    "text",
    [
        # Unfinished markup, as at the end of an interrupted answer.
        "This is **bold and `code",
        # Text that looks like HTML, and characters that must be escaped in it.
        "if a<b then c>d & e",
        # Markup characters with a literal meaning.
        "2*3*4 = 24 and snake_case_name",
        # Formatting only.
        "**bold**",
        # Right to left, combining marks, joined emoji.
        "שלום 👨‍👩‍👧 e\u0301",
    ],
)
async def test_odd_markdown_is_delivered(stage: BotHarness, text: str) -> None:
    stage.first.default = answer(pieces=[text])
    message = await stage.asks("Say something odd.")
    assert message.text.replace("*", "").replace("`", "") == text.replace("*", "").replace("`", "")


async def test_invisible_answer_is_a_failure(stage: BotHarness) -> None:
    """Telegram rejects it: another provider is asked, and if all fail the user is told."""
    stage.first.default = stage.second.default = answer(pieces=["\u200b\u2063"])
    message = await stage.asks("Say nothing.")
    assert message.text in {
        "The model returned an empty answer.",
        "All AI providers are unavailable right now. Please try again in a minute.",
    }


async def test_text_that_is_cut_within_a_character_is_answered(stage: BotHarness) -> None:
    """Half of a surrogate pair can be sent to no provider: it is replaced, and two halves are joined."""
    question = stage.says("half \ud83d, whole \ud83d\ude00", name="Ann \ude00")
    assert (await stage.answer(after=question.id)).text == FIRST
    assert told(stage.first.requests[0]) == [("user", "half \ufffd, whole \U0001f600")]
    assert not stage.events("turn.failed")


async def test_quoted_excerpt_reaches_the_model(stage: BotHarness) -> None:
    """Part of an earlier message, possibly of another conversation."""
    old = await stage.asks("What do you think?")
    quote = {"text": "the first provider", "position": 13}
    await stage.asks("Who is that?", reply_to=old, extra={"quote": quote})
    heard = told(stage.first.requests[1])[-1][1]
    assert "the first provider" in heard
    assert heard.endswith("Who is that?")
    assert (await stage.asks("Thanks", reply_to=old)).text == FIRST
    assert told(stage.first.requests[2])[-1] == ("user", "Thanks"), "what the bot said stands in the history anyway"
