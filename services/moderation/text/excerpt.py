"""Cuts long texts before they are read: the head, the tail, and the telling lines between them.

Everything that Telegram allows in one text (4,096 characters) is read whole. Longer ones (rich messages, albums) would
cost more CPU than a message may, and an advert behind a long harmless beginning must still be found.
"""

import re

LONGEST = 5000
"""Maximum characters of a text that is read in full."""
HEAD, TAIL, BETWEEN = 2800, 1400, 800
"""Characters that are kept of a longer one; together they are `LONGEST`."""
GAP = "\n[…]\n"
_TELLING = re.compile(r"://|www\.|t\.me|@\w|\+\d{6}|[$€£₽₴₸]|\d\s?(?:руб|usd|eur|%)|18\+", re.IGNORECASE)
_WINDOW = 160
"""Characters kept around a telling sign in the middle, half of them before it."""
_SEARCHED = 100_000
"""Characters of the middle that are searched; Telegram's longest message is shorter."""


def cut_long(text: str, longest: int = LONGEST) -> str:
    """Returns a text of at most about `longest` characters; a longer one loses harmless parts of its middle."""
    if len(text) <= longest:
        return text
    head, tail, between = (longest * part // LONGEST for part in (HEAD, TAIL, BETWEEN))
    middle = text[head : len(text) - tail]
    return GAP.join(
        piece for piece in (text[:head], _telling_pieces(middle, max(between, 2 * _WINDOW)), text[-tail:]) if piece
    )


def _telling_pieces(middle: str, longest: int) -> str:
    """Returns the surroundings of links, handles, phone numbers and prices."""
    pieces: list[str] = []
    kept = end = 0
    for sign in _TELLING.finditer(middle, 0, _SEARCHED):
        if sign.start() < end:
            continue
        start = max(end, sign.start() - _WINDOW // 2)
        end = sign.end() + _WINDOW // 2
        piece = middle[start:end]
        kept += len(piece)
        if kept > longest:
            break
        pieces.append(piece)
    return GAP.join(pieces)
