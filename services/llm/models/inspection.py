"""Inspects the settings of a provider before they are saved: server, key, models, streaming, tools, vision, latency."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus

from core.clock import Clock
from core.config.providers import ProviderSettings
from services.llm.models.trial import Failure, ProviderTrial, TrialResult
from services.llm.providers.catalog import Catalog
from services.llm.providers.probe import ProbeResult, probe_providers
from services.llm.request import Capability

LIST_TIMEOUT_S = 5.0


class Aspect(StrEnum):
    """An aspect of a provider, in the order in which they are checked."""

    SERVER = "server"
    KEY = "key"
    MODELS = "models"
    ANSWER = "answer"
    STREAMING = "streaming"
    TOOLS = "tools"
    SYSTEM_ROLE = "system_role"
    VISION = "vision"


class Grade(StrEnum):
    """The result of the check of one aspect."""

    OK = "ok"
    NOTE = "note"
    """Not as it could be, and chat goes on without it."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AspectReport:
    """The result of checking one aspect.

    Args:
        words: the server's words or a reason, without keys.
        seconds: the time that it took, where that says something.
        names: models that it is about; for a list of models, those that are missing.
        count: models that the server lists.
    """

    aspect: Aspect
    grade: Grade
    words: str | None = None
    seconds: float | None = None
    names: Sequence[str] = ()
    count: int = 0


class ProviderInspector:
    """Makes all checks of a provider, directly: the fallback service is not involved, and no state changes."""

    def __init__(self, catalog: Catalog, trial: ProviderTrial, clock: Clock) -> None:
        self._catalog = catalog
        self._trial = trial
        self._clock = clock

    async def inspect(self, provider: ProviderSettings) -> Sequence[AspectReport]:
        """Returns the results in order, without those that a failure made impossible to check."""
        if provider.missing is not None:
            return [AspectReport(Aspect.SERVER, Grade.FAILED, provider.missing)]
        (probe,) = await probe_providers(self._catalog, [provider], LIST_TIMEOUT_S, self._clock)
        checks = _describe_list(probe)
        if not probe.may_answer:
            return checks
        result = await self._trial.run(provider, probe.default_model)
        checks += _describe_trial(result)
        if result.failure is None:
            began = self._clock.monotonic()
            refusal = await self._trial.try_picture(provider, result.model)
            checks.append(_describe_vision(refusal, self._clock.monotonic() - began))
        return checks


def _describe_list(probe: ProbeResult) -> list[AspectReport]:
    """Describes how the server answered the request for its models."""
    if probe.reason is not None and probe.status is None:
        return [AspectReport(Aspect.SERVER, Grade.FAILED, probe.reason)]
    checks = [AspectReport(Aspect.SERVER, Grade.OK, seconds=probe.took_s)]
    if probe.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return [*checks, AspectReport(Aspect.KEY, Grade.FAILED, probe.reason)]
    if probe.reason is not None:
        # Many servers have no list; the answer shows whether the key and the model are right.
        return [*checks, AspectReport(Aspect.MODELS, Grade.NOTE, probe.reason)]
    if probe.provider.api_key is not None:
        checks.append(AspectReport(Aspect.KEY, Grade.OK, count=len(probe.models)))
    grade = Grade.FAILED if probe.unlisted else Grade.OK
    return [*checks, AspectReport(Aspect.MODELS, grade, names=probe.unlisted, count=len(probe.models))]


def _describe_trial(result: TrialResult) -> list[AspectReport]:
    """Describes an answer as chat asks for it, and the capabilities that were left out."""
    if result.failure is not None:
        return [AspectReport(Aspect.ANSWER, Grade.FAILED, str(result.failure), names=(result.model,))]
    seconds = result.took_s if result.first_output_s is None else result.first_output_s
    checks = [AspectReport(Aspect.ANSWER, Grade.OK, seconds=seconds, names=(result.model,))]
    aspects = {
        Aspect.STREAMING: Capability.STREAMING,
        Aspect.TOOLS: Capability.TOOLS,
        Aspect.SYSTEM_ROLE: Capability.SYSTEM_ROLE,
    }
    for aspect, capability in aspects.items():
        refusal = result.refused.get(capability)
        grade = Grade.OK if refusal is None else Grade.NOTE
        checks.append(AspectReport(aspect, grade, None if refusal is None else str(refusal)))
    return checks


def _describe_vision(refusal: Failure | None, seconds: float) -> AspectReport:
    if refusal is None:
        return AspectReport(Aspect.VISION, Grade.OK, seconds=seconds)
    return AspectReport(Aspect.VISION, Grade.NOTE, str(refusal))
