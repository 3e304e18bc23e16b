"""`/audit`: words pages of the audit log in the operator's language."""

from dataclasses import dataclass
from datetime import tzinfo

from bot.operators.formatting import Wording
from core.i18n import Texts
from core.shortening import shorten
from services.admin.audit import Audit, AuditDetail, AuditEntry, AuditKind, AuditPage, encode_detail

PAGE = 10
MAX_SHOWN_DETAIL = 160
"""Maximum characters of a detail; the web console shows all of it."""
DETAILS = frozenset(
    {"budget", "config", "cooled", "forced", "incident", "leaders", "limits", "message", "served", "state"}
    | {"test-failed", "tested"}
)
"""Keys of details that have a text."""


@dataclass(frozen=True, slots=True)
class AuditText:
    """A page in words, and the page; `kind` is None for all acts."""

    text: str
    page: AuditPage
    kind: AuditKind | None


class AuditReports:
    """The `/audit` command of Telegram and the console. Methods raise StorageError where the database fails.

    Args:
        zone: time zone of displayed times.
    """

    def __init__(self, audit: Audit, texts: Texts, zone: tzinfo) -> None:
        self._audit = audit
        self._texts = texts
        self._zone = zone

    async def run(self, arguments: str, language: str | None) -> AuditText | str:
        """Returns the newest page of the kind that the arguments name, or the syntax of the command."""
        wanted = arguments.strip().lower()
        if not wanted:
            return await self.show(None, language)
        kind = self._find_kind(wanted, language)
        return await self.show(kind, language) if kind is not None else self._texts.get("audit-usage", language)

    async def show(
        self, kind: AuditKind | None, language: str | None, *, before: int | None = None, after: int | None = None
    ) -> AuditText:
        """Returns a page; see `Audit.page`."""
        page = await self._audit.page(kind, before=before, after=after, limit=PAGE)
        title = self._texts.get("audit-title", language, kind=self.label(kind, language))
        if not page.entries:
            return AuditText(f"{title}\n\n{self._texts.get('audit-none', language)}", page, kind)
        return AuditText("\n\n".join([title, *(self._line(entry, language) for entry in page.entries)]), page, kind)

    def label(self, kind: AuditKind | None, language: str | None) -> str:
        """Returns the name of a kind; of None, that of all acts."""
        return self._texts.get("audit-kind", language, kind=kind.value if kind is not None else "all")

    def _find_kind(self, word: str, language: str | None) -> AuditKind | None:
        """Returns the kind with this name, in English or the operator's language."""
        for kind in AuditKind:
            if word in {kind.value, self.label(kind, language).lower()}:
                return kind
        return None

    def _line(self, entry: AuditEntry, language: str | None) -> str:
        at = f"{entry.at.astimezone(self._zone):%Y-%m-%d %H:%M}"
        actor = str(entry.actor_id) if entry.actor_id else self._texts.get("audit-local", language)
        act = describe_act(entry.action, self._texts, language)
        about = f"{act}: {entry.target}" if entry.target else act
        detail = shorten(describe_detail(entry.detail, Wording(self._texts, language)), MAX_SHOWN_DETAIL)
        return f"{at}, {actor}\n{about}{f' ({detail})' if detail else ''}"


def describe_act(action: str, texts: Texts, language: str | None) -> str:
    """Returns an action of the log in words."""
    return texts.get("audit-act", language, action=action.replace(".", "-"), name=action)


def describe_detail(detail: AuditDetail | str | None, say: Wording) -> str:
    """Returns a detail of the log in words; one of a newer version as it is stored."""
    if not isinstance(detail, AuditDetail):
        return detail or ""
    values = dict(detail.values)
    match detail.key:
        case "config":
            revision = values.pop("revision", None)
            changes = (say.get("audit-was", name=name, value=_word(value, say)) for name, value in values.items())
            return say.get("audit-detail-config", revision=_word(revision, say), changes="; ".join(changes))
        case "limits":
            parts = (
                say.get("audit-detail-limits", when=name, limits=_word(each, say)) for name, each in values.items()
            )
            return "; ".join(parts)
        case key if key in DETAILS:
            if (state := values.get("state")) is not None:
                label = say.get(f"operator-state-{state}".replace("_", "-"))
                reason = values.pop("reason", None)
                values["state"] = f"{label}, {reason}" if reason else label
            if isinstance(seconds := values.get("seconds"), int | float):
                values["seconds"] = say.duration(seconds)
            total = values.get("total")
            numbers = {"count": total} if isinstance(total, int | float) else {}
            return say.get(
                f"audit-detail-{key}", **{name: _word(each, say) for name, each in values.items()}, **numbers
            )
        case _:
            return encode_detail(detail) or ""


def _word(value: str | float | None, say: Wording) -> str:
    return say.get("audit-nothing") if value is None else str(value)
