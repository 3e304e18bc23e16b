"""The limits in effect: those of the settings, and those that admins set in their place."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.budgets.accounts import Account, BudgetAccounts
from services.llm.routing.admission.budget_guard import BudgetKind, Quote
from services.pseudonyms import Pseudonyms
from services.usage.prices import NANO

OWN_PURPOSES = frozenset({"moderation"})
"""Purposes that count in no budget of a user or a chat: spam must not use up the protection from it."""


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """The limits of the settings, in USD a day; None for none. Those of providers are in their settings."""

    user_usd: float | None = None
    chat_usd: float | None = None
    all_usd: float | None = None

    @property
    def is_empty(self) -> bool:
        """True if nothing is limited."""
        return self.user_usd is None and self.chat_usd is None and self.all_usd is None


class LimitsInEffect:
    """Tells the limit of each budget, and the accounts of a request. Limits are in billionths of a dollar."""

    def __init__(self, accounts: BudgetAccounts, pseudonyms: Pseudonyms, limits: BudgetLimits) -> None:
        self._accounts = accounts
        self._pseudonyms = pseudonyms
        self._limits = limits
        self._overrides: Mapping[str, int | None] = {}
        self.is_empty = limits.is_empty
        """True if nothing is limited, except by the settings of a provider."""

    async def refresh(self) -> None:
        """Reads the limits that admins set.

        Raises:
            StorageError: the database fails.
        """
        self._override(await self._accounts.limits())

    def replace(self, scope: str, limit: int | None) -> None:
        """Applies a limit that was just set in place of that of the settings; None for no limit."""
        self._override({**self._overrides, scope: limit})

    def restore(self, scope: str) -> None:
        """Returns to the limit of the settings."""
        self._override({other: limit for other, limit in self._overrides.items() if other != scope})

    def _override(self, overrides: Mapping[str, int | None]) -> None:
        self._overrides = overrides
        self.is_empty = self._limits.is_empty and not overrides

    async def labels(self) -> Mapping[str, float | None]:
        """Returns the budgets that admins set, in USD, by `user:...` and `chat:...`.

        Raises:
            StorageError: the database fails.
        """
        labels = await self._accounts.labels()
        return {label: None if limit is None else limit / NANO for label, limit in labels.items()}

    def accounts_of(self, quote: Quote) -> list[Account]:
        """Returns the limited accounts that a request counts in."""
        spec, provider = quote.spec, quote.provider
        limits = [
            (BudgetKind.PROVIDER, provider.id, to_nanousd(provider.budget_day_usd)),
            (BudgetKind.ALL, "", self.limit(BudgetKind.ALL, "")),
        ]
        if spec.purpose not in OWN_PURPOSES:
            owners = ((BudgetKind.USER, spec.user), (BudgetKind.CHAT, spec.chat))
            limits += [(kind, owner, self.limit(kind, owner)) for kind, owner in owners if owner is not None]
        return [
            Account(kind, self.scope(kind, owner), owner, limit) for kind, owner, limit in limits if limit is not None
        ]

    def limit(self, kind: BudgetKind, reference: str) -> int | None:
        """Returns the limit of a user, a chat or of all, in billionths of a dollar."""
        scope = self.scope(kind, reference)
        if scope in self._overrides:
            return self._overrides[scope]
        match kind:
            case BudgetKind.USER:
                return to_nanousd(self._limits.user_usd)
            case BudgetKind.CHAT:
                return to_nanousd(self._limits.chat_usd)
            case _:
                return to_nanousd(self._limits.all_usd)

    def scope(self, kind: BudgetKind, reference: str) -> str:
        """Returns the key of an account; those of people and chats hold no id."""
        match kind:
            case BudgetKind.USER | BudgetKind.CHAT:
                return f"{kind}:{self._pseudonyms.of(reference)}"
            case BudgetKind.PROVIDER:
                return f"{kind}:{reference}"
            case BudgetKind.ALL:
                return kind


def to_nanousd(usd: float | None) -> int | None:
    """Returns an amount in billionths of a dollar."""
    return None if usd is None else round(usd * NANO)
