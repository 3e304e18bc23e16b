"""The judge: a model that says what a message is, and a check of what it says."""

from dataclasses import replace
from typing import Protocol

import structlog

from core.errors import (
    AllProvidersFailed,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    ProviderError,
    RequestRejected,
)
from services.llm.models.direct import Answer
from services.moderation.domain.message import GroupMessage
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import (
    MAX_EVIDENCE,
    About,
    Category,
    Evidence,
    Judged,
    Judgement,
    Unjudged,
    Verdict,
    Why,
)
from services.moderation.judging.budget import Budget
from services.moderation.judging.prompt import INSTRUCTIONS, PROMPT_VERSION, parts_of, prompt_for
from services.moderation.judging.verdict_cache import CacheKeyText, VerdictCache
from services.moderation.text.normalise import Normal, normalise

log = structlog.get_logger()

CONTEXT = "moderation"


class Asker(Protocol):
    """Asks a model for a verdict."""

    async def ask(self, instructions: str, prompt: str) -> Answer[Verdict]:
        """The verdict of the first candidate that gives one."""
        ...


class Askers(Protocol):
    """Makes what asks; the model factory is one."""

    def create_moderation_model(self, context: str, *, local_only: bool = False, chat: str | None = None) -> Asker:
        """A model that answers with verdicts."""
        ...


class Judge:
    """Says what messages are.

    Args:
        models: makes what asks.
        models_id: names the models that may answer: other models, other verdicts.
        cache: knows what was judged before.
        budget: how many judgements a group has left today.
    """

    def __init__(self, models: Askers, models_id: str, cache: VerdictCache, budget: Budget) -> None:
        self._models = models
        self._models_id = models_id
        self._cache = cache
        self._budget = budget

    async def judge(
        self, message: GroupMessage, normal: Normal, settings: GroupSettings, *, local_only: bool
    ) -> Judgement:
        """The verdict on a message, or why there is none.

        Args:
            message: the message.
            normal: its author's text, normalised.
            settings: of its group.
            local_only: the group has not agreed to remote providers.
        """
        parts = parts_of(message, normal)
        said = [text for part in parts for text in (part.name, part.text)]
        text = CacheKeyText.of(
            message.group_id, message.author.id, PROMPT_VERSION, self._models_id, str(local_only),
            settings.house_rules, *said,
        )  # fmt: skip

        async def ask() -> Judgement:
            if not await self._budget.take(settings.group_id, settings.budget):
                return Unjudged(Why.BUDGET)
            prompt = prompt_for(parts, name=message.author.name, house_rules=settings.house_rules)
            return await self._asked(message, normal, prompt, local_only=local_only)

        return await self._cache.judged(text, ask)

    async def _asked(self, message: GroupMessage, normal: Normal, prompt: str, *, local_only: bool) -> Judgement:
        chat = f"telegram:{message.group_id}"
        model = self._models.create_moderation_model(CONTEXT, local_only=local_only, chat=chat)
        try:
            answer = await model.ask(INSTRUCTIONS, prompt)
        except ContentRefused as error:
            return Unjudged(Why.REFUSED, error.provider)
        except ConsentNeeded:
            return Unjudged(Why.NO_CONSENT)
        except (RequestRejected, ContextWindowExceeded) as error:
            log.warning("moderation.request_rejected", group_id=message.group_id, error=type(error).__name__)
            return Unjudged(Why.REJECTED)
        except (AllProvidersFailed, ProviderError):
            return Unjudged(Why.OUTAGE)
        verdict = answer.value
        if verdict.evidence is not None:
            verdict = verdict.model_copy(update={"evidence": verdict.evidence[:MAX_EVIDENCE].strip() or None})
        found = where_is(verdict, message, normal)
        judged = Judged(verdict, found, answer.provider, answer.model, answer.input_tokens, answer.output_tokens)
        if found is Evidence.FORWARDED:
            # A bare forward has no words of its own that something could be quoted in.
            judged = replace(judged, verdict=verdict.model_copy(update={"about": About.AUTHOR}))
        return judged


def where_is(verdict: Verdict, message: GroupMessage, normal: Normal) -> Evidence:
    """Where in a message a verdict's evidence is, both as they are read, whatever they are spelled with."""
    if verdict.category in {Category.OK, Category.UNSURE}:
        return Evidence.OWN
    wanted = normalise(verdict.evidence or "").folded
    if not wanted:
        return Evidence.MISSING
    links = normalise("\n".join((*message.links, *message.buttons))).folded
    if wanted in normal.folded or wanted in normalise(normal.text).folded or wanted in links:
        return Evidence.OWN
    if message.is_forward and not normal.text and wanted in normalise(message.forwarded).folded:
        return Evidence.FORWARDED
    if verdict.about is About.PROFILE and wanted in normalise(message.author.name).folded:
        return Evidence.NAME
    return Evidence.MISSING
