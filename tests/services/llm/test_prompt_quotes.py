"""Words of a server that quote a prompt."""

import pytest
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart

from services.llm.prompt_quotes import mask_quotes

PROMPT: list[ModelMessage] = [
    ModelRequest([UserPromptPart("My password is hunter2, please keep it")]),
    ModelResponse([TextPart("Gern, Frau Müller.")]),
    ModelRequest([UserPromptPart(["Пароль от почты"])]),
]


@pytest.mark.parametrize(
    ("words", "masked"),
    [
        ("Unsupported parameter: temperature", "Unsupported parameter: temperature"),
        ("Invalid content 'My password is hunter2'", "Invalid content 'My … is …'"),
        ("Invalid content 'My passw", "Invalid content 'My …"),
        ("input_value=hunter2", "input_value=…"),
        ("cannot answer Müller", "cannot answer …"),
        ("bad text: Пароль от почты", "bad text: …"),
        (r"bad text: \u041f\u0430", "bad text: …"),
    ],
)
def test_quotes_are_masked_and_the_rest_is_kept(words: str, masked: str) -> None:
    assert mask_quotes(words, PROMPT) == masked
