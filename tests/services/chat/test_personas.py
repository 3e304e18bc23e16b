"""Personas: their stored form, their names and instructions, and how a model receives them."""

import pytest

from core.i18n import Texts
from services.chat import personas

TEXTS = Texts(strict=True)


@pytest.mark.parametrize("language", TEXTS.languages)
def test_built_in_personas_have_texts_of_their_own_in_every_language(language: str) -> None:
    told = [personas.instructions(TEXTS, personas.built_in(each), language) for each in personas.BUILT_IN]
    names = [personas.describe(TEXTS, personas.built_in(each), language) for each in personas.BUILT_IN]
    assert len(set(told)) == len(set(names)) == len(personas.BUILT_IN) == 6
    assert all(text is not None and len(text) > 200 for text in told)


@pytest.mark.parametrize(
    ("stored", "name", "told"),
    [
        (None, "Standard", None),
        (personas.STANDARD, "Standard", None),
        # One that a later release had, or that was removed.
        (":pirate", "Standard", None),
        ("Answer as a pirate.", "your own instructions", "Answer as a pirate."),
    ],
)
def test_other_personas(stored: str | None, name: str, told: str | None) -> None:
    assert personas.describe(TEXTS, stored, "en") == name
    assert personas.instructions(TEXTS, stored, "en") == told


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("  Answer as a pirate. ", "Answer as a pirate."),
        ("", None),
        ("   ", None),
        # Typed by a person, it is no built-in one.
        (":teacher", "teacher"),
        (":::", None),
        ("x" * 3000, "x" * personas.MAX_LENGTH),
    ],
)
def test_own_instructions(typed: str, stored: str | None) -> None:
    assert personas.own(typed) == stored
