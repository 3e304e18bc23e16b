"""Personas: instructions on how the bot answers, built in or a chat's own.

A stored persona is the id of a built-in one after a colon, or the instructions themselves. Those of the built-in ones
are texts of the locales, so that a new language brings its own.
"""

from core.i18n import Texts

BUILT_IN = ("brief", "teacher", "editor", "translator", "programmer", "critic")
"""Ids of the built-in personas, in the order of the picker."""
MAX_LENGTH = 2000
"""Characters of own instructions; longer ones are cut."""
_MARK = ":"
STANDARD = _MARK
"""Stored where a thread has no persona although its chat has one."""


def built_in(persona_id: str) -> str:
    """Returns the stored form of a built-in persona; of an empty id, that of none."""
    return f"{_MARK}{persona_id}" if persona_id in BUILT_IN else STANDARD


def own(instructions: str) -> str | None:
    """Returns the stored form of own instructions; None for empty ones."""
    text = instructions.strip()[:MAX_LENGTH].strip()
    # The mark is for built-in ones only.
    return text.lstrip(_MARK).strip() or None


def persona_id(stored: str | None) -> str | None:
    """Returns the id of a built-in persona, empty for the standard one; None for own instructions."""
    if stored is None:
        return ""
    if not stored.startswith(_MARK):
        return None
    found = stored.removeprefix(_MARK)
    return found if found in BUILT_IN else ""


def describe(texts: Texts, stored: str | None, language: str | None) -> str:
    """Returns the name of a persona for people."""
    found = persona_id(stored)
    if found is None:
        return texts.get("persona-own", language)
    return texts.get(f"persona-{found}-name" if found else "persona-standard", language)


def instructions(texts: Texts, stored: str, language: str | None) -> str | None:
    """Returns the instructions for the model; None for the standard persona."""
    found = persona_id(stored)
    if found is None:
        return stored
    return texts.get(f"persona-{found}-instructions", language) if found else None
