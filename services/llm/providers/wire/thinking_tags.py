"""Thinking in the text of answers: tags in any model's spelling, and thinking that only has an end.

The chat templates of many reasoning models write the opening tag themselves. It is a part of the prompt then, and the
answer begins in the middle of the thinking. That cannot be seen before the closing tag comes, so it is learned.
"""

import re
from collections.abc import Mapping

_NAMES = ("think", "thinking", "thought", "thoughts", "reasoning", "seed:think")
_ANGLED = tuple(f"</{name}>" for name in _NAMES)
_OPENINGS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys((f"<{name}>" for name in _NAMES), _ANGLED),
    # Mistral's, Kimi's, Cohere's, and two of models that were trained on the output of others.
    "[think]": ("[/think]",),
    "\u25c1think\u25b7": ("\u25c1/think\u25b7",),
    "<|start_thinking|>": ("<|end_thinking|>",),
    "<|begin_of_thought|>": ("<|end_of_thought|>",),
    "<|thinking|>": ("<|/thinking|>",),
    # OpenAI's open models, where a server does not read their channels.
    "<|channel|>analysis<|message|>": ("<|start|>assistant<|channel|>final<|message|>", "<|channel|>final<|message|>"),
}
"""Spellings of the tag before thinking, in lower case, each with those that end it. Models mix the names of tags."""
TAG_BEGINNINGS = frozenset(opening[0] for opening in _OPENINGS)
"""First characters of those tags."""
_CLOSINGS = tuple(dict.fromkeys(tag for tags in _OPENINGS.values() for tag in tags))
_LONGEST_OPENING = max(map(len, _OPENINGS))
LONE_CLOSING = re.compile(rf"^[ \t]*+(?:{'|'.join(map(re.escape, _CLOSINGS))})[ \t]*+$", re.IGNORECASE | re.MULTILINE)
"""A closing tag that has its line to itself, as templates and models write it."""
_FENCE = "```"
_BLANKS = " \t"
_LONGEST_LINE = 64
"""Characters of a line that is held since it may be a tag between white space."""
_LINES = re.compile(
    rf"^[ \t]*+(?:({_FENCE})|(?:{'|'.join(map(re.escape, _CLOSINGS))})[ \t]*+$)", re.IGNORECASE | re.MULTILINE
)
"""The lines within which code begins or ends, and closing tags that have their line to themselves."""
_MOST_WHITE_SPACE = 1024
"""Characters before an opening tag that are held: each piece of an answer looks at them anew."""


class ThinkingTags:
    """Splits text so that thinking tags stand alone, in the spelling that the library's parser expects.

    An opening tag counts at the beginning of a text only; white space before it is dropped with it.

    Args:
        opening: the tag before thinking as the library's parser expects it.
        closing: the tag after thinking, likewise.
        habit: whether the model's text begins in the middle of its thinking.
    """

    def __init__(self, opening: str, closing: str, habit: "ThinkingHabit | None" = None) -> None:
        self._opening = opening
        self._closing = closing
        self._openings = _OPENINGS if opening in _OPENINGS else {**_OPENINGS, opening.lower(): (closing.lower(),)}
        self._closings: tuple[str, ...] = ()
        """The tags that end the thinking that has begun."""
        self._held = ""
        self._is_at_start = True
        self._has_own_tags = False
        self._habit = habit or ThinkingHabit()
        self._assumed: list[str] | None = None
        """The text that counts as thinking by the habit alone, until an answer has followed it."""
        self._is_within_line = False
        """True if the beginning of the current line of assumed thinking was passed on."""
        self._is_in_code = False

    def split(self, piece: str) -> list[str]:
        """Returns the pieces that are known by now; the rest is held back."""
        if not (self._closings or self._is_at_start):
            if self._assumed is not None and piece.strip():
                self._assumed = None
                self._habit.confirm()
            return self._quote(piece)
        text, self._held = self._held + piece, ""
        pieces: list[str] = []
        while text:
            if self._closings:
                text = self._split_thinking(text, pieces)
            elif self._is_at_start:
                text = self._split_start(text, pieces)
            else:
                pieces += self.split(text)
                break
        return pieces

    def end(self, *, is_cut: bool) -> list[str]:
        """Returns assumed thinking that is the answer: without an opening tag, and without text after it.

        Args:
            is_cut: the answer ended at its length limit, perhaps within its thinking.
        """
        assumed, self._assumed = self._assumed, None
        if assumed is None or (is_cut and self._closings and self._habit.is_confirmed):
            return []
        self._habit.withdraw()
        ended = [self._closing] if self._closings else []
        self._closings = ()
        text = "".join(assumed)
        return [*ended, *self._quote(text)] if text.strip() else ended

    def flush(self, *, is_end: bool) -> list[str]:
        """Returns the text that is held back: all of it at the end, the part outside thinking before a tool call."""
        if self._assumed is not None and self._is_closing(self._held):
            self._held, self._closings = "", ()
            return [self._closing, *self.flush(is_end=is_end)]
        if self._assumed is not None and self._closings and not is_end:
            # A model that thinks ends that before it calls a tool.
            return [*self.flush(is_end=True), *self.end(is_cut=False)]
        if self._assumed is not None and not is_end:
            self._assumed = None
            self._habit.confirm()
        if self._closings and not is_end:
            return []
        held, self._held = self._held, ""
        if self._assumed is not None and self._closings:
            self._assumed.append(held)
        return self._quote(held) if held else []

    def _split_start(self, text: str, pieces: list[str]) -> str:
        stripped = text.lstrip()
        beginning = stripped[:_LONGEST_OPENING].lower()
        opening = next(filter(beginning.startswith, self._openings), None)
        if opening is not None:
            self._closings = self._openings[opening]
            self._has_own_tags = True
            pieces.append(self._opening)
            return stripped[len(opening) :]
        is_short = len(text) - len(stripped) <= _MOST_WHITE_SPACE
        if is_short and any(each.startswith(beginning) for each in self._openings):
            self._held = text
            return ""
        self._is_at_start = False
        if self._habit.is_opened_by_template and not self._has_own_tags:
            self._closings = _CLOSINGS
            self._assumed = []
            pieces.append(self._opening)
        return text

    def _split_assumed(self, text: str, pieces: list[str]) -> str:
        """Splits thinking that is assumed. Only a tag with a line to itself ends it: others are quoted.

        The beginning of a line is held while it may be such a tag.
        """
        lines = text.rfind("\n") + 1
        begin = text.find("\n") + 1 if self._is_within_line else 0
        for found in _LINES.finditer(text, begin, lines):
            if found[1]:
                self._is_in_code = not self._is_in_code
            elif not self._is_in_code:
                self._pass_assumed(text[: found.start()], pieces)
                self._closings = ()
                pieces.append(self._closing)
                return text[found.end() :]
        rest = text[lines:]
        self._is_within_line = self._is_within_line and not lines
        if not self._is_within_line:
            if self._may_be_closing(rest):
                self._held = rest
                text = text[:lines]
            else:
                self._is_within_line = True
                self._is_in_code ^= rest.lstrip(_BLANKS).startswith(_FENCE)
        self._pass_assumed(text, pieces)
        return ""

    def _pass_assumed(self, text: str, pieces: list[str]) -> None:
        if text and self._assumed is not None:
            pieces += self._quote(text)
            self._assumed.append(text)

    def _is_closing(self, line: str) -> bool:
        return not self._is_in_code and line.strip(_BLANKS).lower() in self._closings

    def _may_be_closing(self, beginning: str) -> bool:
        """Returns whether a line that begins like this may be a closing tag, or that of code."""
        said = beginning.lstrip(_BLANKS).lower()
        is_short = len(beginning) <= _LONGEST_LINE
        return is_short and (any(each.startswith(said) for each in (*self._closings, _FENCE)) or self._is_closing(said))

    def _split_thinking(self, text: str, pieces: list[str]) -> str:
        if self._assumed is not None:
            return self._split_assumed(text, pieces)
        found = re.search("|".join(map(re.escape, self._closings)), text, re.IGNORECASE)
        if found is not None:
            self._closings = ()
            before = text[: found.start()]
            pieces += [before, self._closing] if before else [self._closing]
            return text[found.end() :]
        held = max(_overlap(text, closing) for closing in self._closings)
        self._held = text[len(text) - held :]
        if rest := text[: len(text) - held]:
            pieces += self._quote(rest)
        return ""

    def _quote(self, text: str) -> list[str]:
        """Returns the pieces of a text that is no tag: the library takes each piece for one that looks like one."""
        return [text[:1], text[1:]] if text in {self._opening, self._closing} else [text]


def _overlap(text: str, tag: str) -> int:
    """Returns the length of the longest end of the text that begins the tag."""
    end = text[1 - len(tag) :].lower()
    return next((length for length in range(len(tag) - 1, 0, -1) if end.endswith(tag[:length])), 0)


class ThinkingHabit:
    """Learns from each answer of a model whether its text begins in the middle of its thinking.

    A wrong assumption loses nothing: an answer without a closing tag, or with nothing behind it, is shown at its end.
    """

    def __init__(self) -> None:
        self.is_opened_by_template = False
        """True once an answer had a closing tag without an opening one."""
        self.is_confirmed = False
        """True once an answer came out right by the assumption."""

    def learn(self, text: str) -> None:
        """Learns from the text of a whole answer."""
        self.is_opened_by_template = self.is_opened_by_template or find_thinking_end(text) is not None

    def confirm(self) -> None:
        """Notes that an answer followed thinking that was assumed."""
        self.is_confirmed = True

    def withdraw(self) -> None:
        """Notes that an answer was taken for thinking."""
        self.is_opened_by_template = self.is_confirmed = False


def find_thinking_end(text: str) -> int | None:
    """Returns the place behind a closing tag that ends thinking from the beginning of a text; None if there is none.

    The tag stands alone in its line, outside code, with no opening tag before it and an answer behind it: a text about
    such tags quotes them otherwise.
    """
    found = LONE_CLOSING.search(text)
    if found is None or not text[found.end() :].strip():
        return None
    before = text[: found.start()]
    is_in_code = before.count("```") % 2 == 1
    lowered = before.lower()
    return None if is_in_code or any(opening in lowered for opening in _OPENINGS) else found.end()
