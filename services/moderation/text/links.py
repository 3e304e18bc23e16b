"""Where a message's links lead: hosts and paths, whatever tricks they are written with."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from services.moderation.domain.message import GroupMessage
from services.moderation.text.normalise import Normal

TELEGRAM_HOSTS = frozenset({"t.me", "telegram.me", "telegram.dog"})
_WRITTEN = re.compile(
    r"(?<![\w@.])(?:https?://|tg://|www\.|(?:t|telegram)\.(?:me|dog)/)[^\s<>\"'«»]{2,}", re.IGNORECASE
)
"""Links that a client may not have marked as such: hidden characters broke them before they were normalised."""
_TRAILING = ".,;:!?)]}»\"'…"
_LONGEST = 2048
_MOST = 100


@dataclass(frozen=True, slots=True)
class Link:
    """Where a link leads.

    Args:
        host: lower case, in ASCII where it is an international name, without `www.`.
        path: what follows, without query and fragment; for Telegram's own `tg://` as the same on `t.me`.
    """

    host: str
    path: str = ""

    @property
    def is_telegram(self) -> bool:
        """Whether it leads to a user, a chat or a bot of Telegram."""
        return self.host in TELEGRAM_HOSTS

    @property
    def is_invite(self) -> bool:
        """Whether it invites to a private chat or folder."""
        return self.is_telegram and self.path.startswith(("/+", "/joinchat/", "/addlist/"))

    def is_within(self, entry: str) -> bool:
        """Whether it belongs to an entry of a list: a domain with all below it, or one with the beginning of a path."""
        allowed = parse_link(entry)
        if allowed is None:
            return False
        is_host = self.host == allowed.host or self.host.endswith(f".{allowed.host}")
        path, own = allowed.path.rstrip("/").casefold(), self.path.casefold()
        return is_host and (not path or own == path or own.startswith(f"{path}/"))


def extract_links(message: GroupMessage, normal: Normal) -> tuple[Link, ...]:
    """Every link of a message: in its text, under its text, in its buttons; the first hundred."""
    found: dict[Link, None] = {}
    for target in _targets(message, normal):
        link = parse_link(target)
        if link is not None:
            found[link] = None
        if len(found) >= _MOST:
            break
    return tuple(found)


def parse_link(target: str) -> Link | None:
    """A link as written, with or without its scheme; `@name` leads to t.me. None where nothing can be made of it."""
    target = target.strip()[:_LONGEST].replace("\\", "/")
    if target.startswith("@"):
        return Link("t.me", f"/{target[1:]}")
    if target.lower().startswith(("mailto:", "tel:")):
        return None
    try:
        parts = urlsplit(target if "://" in target else f"//{target}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return None
    if parts.scheme == "tg":
        return _deep_link(host, parts.query)
    if not host:
        return None
    try:
        host = host.encode("idna").decode()
    except UnicodeError:
        # No name that a resolver would take; it is still the same name for whoever compares.
        host = host.casefold()
    return Link(host.lower().removeprefix("www."), parts.path)


def _deep_link(action: str, query: str) -> Link:
    """`tg://resolve?domain=name` and the like as the same on t.me."""
    values = {name: found[0] for name, found in parse_qs(query).items()}
    if action == "join":
        return Link("t.me", f"/+{values.get('invite', '')}")
    if action == "addlist":
        return Link("t.me", f"/addlist/{values.get('slug', '')}")
    return Link("t.me", f"/{values.get('domain', '')}")


def _targets(message: GroupMessage, normal: Normal) -> Iterable[str]:
    yield from message.links
    yield from message.buttons
    for written in _WRITTEN.finditer(normal.text):
        yield written[0].rstrip(_TRAILING)
