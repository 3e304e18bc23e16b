"""Extracts the link targets of a message, however they are disguised."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from urllib.parse import parse_qs, urlsplit

from services.moderation.domain.message import GroupMessage
from services.moderation.text.normalise import Normal

TELEGRAM_HOSTS = frozenset({"t.me", "telegram.me", "telegram.dog"})
_WRITTEN = re.compile(
    r"(?<![\w@.])(?:https?://|tg://|www\.|(?:t|telegram)\.(?:me|dog)/)[^\s<>\"'«»]{2,}", re.IGNORECASE
)
"""Links without an entity: before normalisation, hidden characters broke them."""
_BARE = re.compile(
    r"(?<![\w@.-])(?:[\w-]{1,63}\.){1,5}(?:com|org|net|ru|su|рф|io|me|app|dev|info|biz|xyz|top|site|online|shop|club|pro"
    r"|vip|win|bet|live|link|cc|tv|uk|de|fr|eu|ua|by|kz|ly|gl|gd|co|ai|gg|store|fun|space|casino|finance|cash|work)\b"
    r"(?:/[^\s<>\"']{0,500})?",
    re.IGNORECASE,
)
"""Text that Telegram turns into a link. For the local score only: a rule needs Telegram's own word for it."""
_TRAILING = ".,;:!?)]}»\"'…"
_MAX_LENGTH = 2048
_MAX_LINKS = 100


@dataclass(frozen=True, slots=True)
class Link:
    """The target of a link.

    Args:
        host: lower case, IDNA-encoded, without `www.`.
        path: without query and fragment. A `tg://` link has the equivalent host and path on `t.me`.
        is_mention: written as `@name`, which addresses a member of the group more often than it advertises.
    """

    host: str
    path: str = ""
    is_mention: bool = False

    @property
    def is_telegram(self) -> bool:
        """True if it points to a Telegram user, chat or bot."""
        return self.host in TELEGRAM_HOSTS

    @property
    def is_invite(self) -> bool:
        """True if it is an invitation to a private chat or a folder."""
        return self.is_telegram and self.path.startswith(("/+", "/joinchat/", "/addlist/"))

    def is_within(self, entry: str) -> bool:
        """Returns whether a list entry covers it: a domain with its subdomains, optionally with a path prefix."""
        allowed = parse_link(entry)
        if allowed is None:
            return False
        is_host = self.host == allowed.host or self.host.endswith(f".{allowed.host}")
        path, own = allowed.path.rstrip("/").casefold(), self.path.casefold()
        return is_host and (not path or own == path or own.startswith(f"{path}/"))


def extract_links(message: GroupMessage, normal: Normal) -> tuple[Link, ...]:
    """Returns the distinct links of a message from entities, buttons and plain text; at most 100."""
    found: dict[Link, None] = {}
    for target in _find_targets(message, normal):
        link = parse_link(target)
        if link is not None:
            found[link] = None
        if len(found) >= _MAX_LINKS:
            break
    return tuple(found)


def find_bare_links(normal: Normal) -> tuple[Link, ...]:
    """Returns the domains and addresses without a scheme in a text, at most 100."""
    targets = (found[0].rstrip(_TRAILING) for found in islice(_BARE.finditer(normal.text), _MAX_LINKS))
    return tuple(link for target in targets if (link := parse_link(target)) is not None)


def parse_link(target: str) -> Link | None:
    """Parses a link with or without scheme; `@name` is on t.me. Returns None if it is no link."""
    target = target.strip()[:_MAX_LENGTH].replace("\\", "/")
    if target.startswith("@"):
        return Link("t.me", f"/{target[1:]}", is_mention=True)
    if target.lower().startswith(("mailto:", "tel:")):
        return None
    try:
        parts = urlsplit(target if "://" in target else f"//{target}")
        host = (parts.hostname or "").rstrip(".")
    except ValueError:
        return None
    if parts.scheme == "tg":
        return _convert_deep_link(host, parts.query)
    if not host:
        return None
    try:
        host = host.encode("idna").decode()
    except UnicodeError:
        # Not resolvable, but still comparable.
        host = host.casefold()
    return Link(host.lower().removeprefix("www."), parts.path)


def _convert_deep_link(action: str, query: str) -> Link:
    """Converts `tg://resolve?domain=name` and similar links to t.me."""
    values = {name: found[0] for name, found in parse_qs(query).items()}
    if action == "join":
        return Link("t.me", f"/+{values.get('invite', '')}")
    if action == "addlist":
        return Link("t.me", f"/addlist/{values.get('slug', '')}")
    return Link("t.me", f"/{values.get('domain', '')}")


def _find_targets(message: GroupMessage, normal: Normal) -> Iterable[str]:
    yield from message.links
    yield from message.buttons
    for written in _WRITTEN.finditer(normal.text):
        yield written[0].rstrip(_TRAILING)


_LIVE = re.compile(
    r"(?P<scheme>:(?=//))|(?P<dot>(?<=\w)[.\u3002](?=[^\W\d_])|(?<=\d)\.(?=\d{1,3}\.\d|\d{1,3}(?:[:/]|$)))"
    r"|(?P<at>@(?=\w))|(?P<command>(?<!\S)/(?=[A-Za-z]))"
)
"""The characters by which Telegram recognises links, domains, user names and commands."""


def defang(text: str) -> str:
    """Returns a text in which nothing can be clicked: `t[.]me/name`, `[@]name`, `https[:]//`."""
    return _LIVE.sub(lambda found: f"[{found[0]}]", text)
