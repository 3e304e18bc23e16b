"""Operator acts on providers: force, clear, cooldown, reset, test. Each act is recorded in the audit log."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial

import structlog

from core.clock import Clock
from core.config.providers import ProviderSettings
from core.errors import StorageError
from services.admin.audit import Audit, AuditDetail
from services.admin.undo import RoutingAct, UndoStore
from services.llm.models.trial import ProviderTrial, TrialResult
from services.llm.providers.builder import ModelBuilder
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.routing.faults.refusal_words import Fault
from services.llm.routing.status import ProviderStatus, ServiceStatus
from services.usage.totals import UsageTotal, UsageTotals

log = structlog.get_logger()

FORCE_S = 1800.0
"""Duration of a force without one of its own."""


@dataclass(frozen=True, slots=True)
class ActRecord:
    """Reach of an act.

    Args:
        is_shared: whether the other replicas see it now; otherwise once Redis is back.
        is_audited: whether the audit log has it.
        undo_id: the id by which it can be undone; None if it changed nothing, or Redis does not answer.
    """

    is_shared: bool
    is_audited: bool
    undo_id: str | None = None


@dataclass(frozen=True, slots=True)
class ProviderAct:
    """Result of an act on a provider.

    Args:
        status: status of the provider after the act.
        seconds: duration of the act; 0 where it has none.
    """

    status: ProviderStatus
    seconds: float
    record: ActRecord


@dataclass(frozen=True, slots=True)
class ProviderTest:
    """Result of a test of the default model of a provider."""

    status: ProviderStatus
    result: TrialResult
    record: ActRecord


class ProviderAdmin:
    """Acts on providers for operators. Permissions are checked by the caller.

    Args:
        builder: builds the model of a test request.
        undoable: keeps the values that acts replace.
        beside_chat: the fallback services of the capabilities beside chat, by name.
    """

    def __init__(
        self,
        fallback: LLMProviderFallback,
        builder: ModelBuilder,
        audit: Audit,
        usage: UsageTotals,
        clock: Clock,
        undoable: UndoStore,
        beside_chat: Mapping[str, LLMProviderFallback] | None = None,
    ) -> None:
        self._fallback = fallback
        self._undoable = undoable
        self._changing = asyncio.Lock()
        """Held while an act changes the state: otherwise its undo would take back another one of the same moment."""
        self._beside_chat = beside_chat or {}
        self._builder = builder
        self._audit = audit
        self._usage = usage
        self._clock = clock

    @property
    def status(self) -> ServiceStatus:
        """Every provider, by the local copy of the shared state."""
        return self._fallback.get_provider_status()

    @property
    def status_beside_chat(self) -> Mapping[str, ServiceStatus]:
        """The providers of each capability beside chat, by its name."""
        return {name: fallback.get_provider_status() for name, fallback in self._beside_chat.items()}

    @property
    def default_cooldown_s(self) -> float:
        """PROVIDER_COOLDOWN."""
        return self._fallback.recorder.limits.cooldown_s

    async def usage_today(self) -> Mapping[str, UsageTotal] | None:
        """Returns the usage per provider of today; None while the database is unavailable."""
        try:
            return await self._usage.by_provider(self._usage.today)
        except StorageError as error:
            log.warning("admin.usage_unavailable", error=str(error))
            return None

    def find(self, name: str) -> ProviderSettings | None:
        """Returns the usable provider of that id, in any case."""
        return next((each for each in self._fallback.providers if each.id.casefold() == name.casefold()), None)

    def find_status(self, name: str) -> ProviderStatus | None:
        """Returns the status of a listed provider, usable or not, in any case."""
        return next((each for each in self.status.providers if each.provider.casefold() == name.casefold()), None)

    async def force(self, provider: ProviderSettings, actor_id: int, seconds: float | None = None) -> ProviderAct:
        """Forces a provider for so many seconds: it is asked first, even during a cooldown."""
        seconds = FORCE_S if seconds is None else seconds
        detail = AuditDetail("forced", {"seconds": seconds, **_name_leaders(self.status)})
        force = partial(self._fallback.force_provider, provider.id, seconds)
        return await self._act(provider, actor_id, "force", force, detail, seconds)

    async def clear(self, actor_id: int) -> ActRecord:
        """Clears the forced and the preferred provider."""
        detail = AuditDetail("leaders", _name_leaders(self.status))
        return await self._change("", actor_id, "clear", self._fallback.clear_cache, detail)

    async def cooldown(self, provider: ProviderSettings, actor_id: int, seconds: float | None = None) -> ProviderAct:
        """Asks this provider last for so many seconds; a cooldown that ends later stays."""
        seconds = self.default_cooldown_s if seconds is None else seconds
        detail = AuditDetail("cooled", {"seconds": seconds, **self._name_state(provider)})
        cooldown = partial(self._fallback.control.cool_down, provider.id, seconds, by=f"admin {actor_id}")
        return await self._act(provider, actor_id, "cooldown", cooldown, detail, seconds)

    async def reset(self, provider: ProviderSettings, actor_id: int) -> ProviderAct:
        """Ends the cooldown of a provider."""
        reset = partial(self._fallback.control.reset, provider.id)
        return await self._act(provider, actor_id, "reset", reset, AuditDetail("state", self._name_state(provider)))

    async def undo(self, act: RoutingAct, actor_id: int) -> bool:
        """Undoes an act, unless the state has changed since; returns whether it did.

        Raises:
            UnknownProvider: its provider is not configured any more.
        """
        leaders = _name_leaders(self.status)
        is_done = await self._fallback.control.restore(act.provider, act.before, act.after)
        if is_done:
            await self._record(actor_id, "undo", act.provider or None, AuditDetail("leaders", leaders))
        return is_done

    async def test(self, provider: ProviderSettings, actor_id: int) -> ProviderTest:
        """Asks the default model of a provider for a few tokens, as chat does: a stream with a tool offered.

        The request bypasses the fallback service and changes no state: one word in time is no proof that answers of a
        minute come through.
        """
        trial = ProviderTrial(self._builder, self._clock, self.default_cooldown_s)
        result = await trial.run(provider)
        failure = result.failure
        if failure is not None and failure.outcome.fault is Fault.OURS:
            log.error("provider.test_broken", provider=provider.id, exc_info=failure.error)
        if failure is None:
            detail = AuditDetail("tested", {"ms": round(result.took_s * 1000)})
        else:
            detail = AuditDetail("test-failed", {"failure": f"{failure}"})
        is_audited = await self._record(actor_id, "test", provider.id, detail) is not None
        return ProviderTest(self._status(provider), result, ActRecord(is_shared=True, is_audited=is_audited))

    async def _act(
        self,
        provider: ProviderSettings,
        actor_id: int,
        action: str,
        change: Callable[[], Awaitable[None]],
        detail: AuditDetail,
        seconds: float = 0.0,
    ) -> ProviderAct:
        record = await self._change(provider.id, actor_id, action, change, detail)
        return ProviderAct(self._status(provider), seconds, record)

    async def _change(
        self, provider_id: str, actor_id: int, action: str, change: Callable[[], Awaitable[None]], detail: AuditDetail
    ) -> ActRecord:
        """Changes the routing state, audits the act, and keeps the values that it replaced."""
        control = self._fallback.control
        async with self._changing:
            before = control.find_overrides(provider_id)
            await change()
            act = RoutingAct(provider=provider_id, before=before, after=control.find_overrides(provider_id))
        is_shared = self.status.shared
        audit_id = await self._record(actor_id, action, provider_id or None, detail)
        return ActRecord(is_shared, audit_id is not None, await self._undoable.keep(act, audit_id))

    async def _record(self, actor_id: int, action: str, target: str | None, detail: AuditDetail) -> int | None:
        action = f"provider.{action}"
        log.info("admin.acted", action=action, target=target, actor_id=actor_id, **detail.values)
        return await self._audit.try_record(actor_id, action, target, detail)

    def _name_state(self, provider: ProviderSettings) -> Mapping[str, str | None]:
        status = self._status(provider)
        return {"state": status.state.value, "reason": status.reason}

    def _status(self, provider: ProviderSettings) -> ProviderStatus:
        return next(each for each in self.status.providers if each.provider == provider.id)


def _name_leaders(status: ServiceStatus) -> Mapping[str, str | None]:
    """Returns the forced and the preferred provider, for the audit log."""
    return {"forced": status.forced, "preferred": status.preferred}
