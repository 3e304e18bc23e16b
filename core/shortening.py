"""Shortens texts for places of limited length, such as an entry of a list or a line about a tool."""


def shorten(text: str, longest: int) -> str:
    """Returns a text of at most `longest` characters; one that was cut ends with an ellipsis."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def shorten_line(text: str, longest: int) -> str:
    """Returns a text as one line of at most `longest` characters, its white space collapsed."""
    return shorten(" ".join(text.split()), longest)
