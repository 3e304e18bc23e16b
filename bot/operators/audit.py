"""`/audit`: words pages of the audit log in the operator's language."""

from dataclasses import dataclass
from datetime import tzinfo

from core.i18n import Texts
from core.shortening import shorten
from services.admin.audit import Audit, AuditEntry, AuditKind, AuditPage

PAGE = 10
MAX_SHOWN_DETAIL = 160
"""Characters of a detail on a page; the web console shows all of it."""


@dataclass(frozen=True, slots=True)
class AuditText:
    """A page in words, and the page; `kind` is None for all acts."""

    text: str
    page: AuditPage
    kind: AuditKind | None


class AuditReports:
    """The `/audit` command of Telegram and the console. Methods raise StorageError where the database fails.

    Args:
        zone: of the instants that are shown.
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
        detail = shorten(entry.detail or "", MAX_SHOWN_DETAIL)
        return f"{at}, {actor}\n{about}{f' ({detail})' if detail else ''}"


def describe_act(action: str, texts: Texts, language: str | None) -> str:
    """Returns an action of the log in words."""
    return texts.get("audit-act", language, action=action.replace(".", "-"), name=action)
