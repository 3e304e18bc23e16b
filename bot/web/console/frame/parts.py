"""The services that the console shows and acts on."""

from dataclasses import dataclass

from bot.operators.daemon_services import DaemonServices
from bot.operators.spending import BudgetCommands
from core.clock import Clock
from core.config.settings import Settings
from core.i18n import Texts
from services.admin.audit import Audit
from services.admin.broadcasts import Broadcasts
from services.admin.configuration import ProviderConfiguration
from services.admin.providers import ProviderAdmin
from services.admin.undo import UndoStore
from services.api.tokens import TokenStore
from services.compare.votes import Votes
from services.history.figures import FigureHistory
from services.history.states import StateHistory
from services.llm.routing.fallback import LLMProviderFallback
from services.usage.totals import UsageTotals


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """The services of a console. Those of `daemon` exist while the Telegram daemon works in the same process."""

    settings: Settings
    clock: Clock
    texts: Texts
    fallback: LLMProviderFallback
    configuration: ProviderConfiguration
    admin: ProviderAdmin
    audit: Audit
    totals: UsageTotals
    history: FigureHistory
    states: StateHistory
    tokens: TokenStore
    broadcasts: Broadcasts
    budgets: BudgetCommands
    votes: Votes
    undoable: UndoStore
    daemon: DaemonServices
