"""The judge: asks a model for a verdict, within a daily budget, and checks the evidence that it quotes."""

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import structlog
from cachetools import LRUCache
from redis.asyncio import Redis

from core.clock import Clock
from core.errors import (
    AllProvidersFailed,
    ConsentNeeded,
    ContentRefused,
    ContextWindowExceeded,
    NoUsableAnswer,
    ProviderError,
    RequestRejected,
)
from core.messages import ChatRef, Surface, chat_ref
from core.redis.client import REDIS_ERRORS
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
    NoVerdictReason,
    Unjudged,
    Verdict,
)
from services.moderation.judging.prompt import INSTRUCTIONS, PROMPT_VERSION, collect_parts, render_prompt
from services.moderation.judging.verdict_cache import CacheKey, VerdictCache
from services.moderation.text.normalise import Normal, letter_weight, normalise

log = structlog.get_logger()

CONTEXT = "moderation"
DAY_S = 24 * 3600
AUTHOR_SHARE = 4
"""Share of a group's budget available to one author."""
SHORTEST_EVIDENCE = 3
"""Minimum letters and digits of evidence; shorter strings occur in any text."""
_WORD = re.compile(r"\w+")
LOCAL_COUNTERS = 10_000
"""Maximum number of local counters used while Redis is unreachable."""


class VerdictModel(Protocol):
    """A model that answers with verdicts."""

    async def ask(self, instructions: str, prompt: str) -> Answer[Verdict]:
        """Returns the verdict of the first candidate that gives one."""
        ...


class VerdictModels(Protocol):
    """Creates models for verdicts; implemented by the model factory."""

    def create_moderation_model(
        self, context: str, *, local_only: bool = False, chat: ChatRef | None = None
    ) -> VerdictModel:
        """Returns a model for one chat; `local_only` excludes remote providers."""
        ...


class RemoteConsent(Protocol):
    """Knows whether a group's messages may be sent to remote providers."""

    async def is_allowed(self, settings: GroupSettings) -> bool:
        """Returns the group's consent."""
        ...


class Budget:
    """Counts judgements per group, per author and UTC day, over all replicas.

    One author may use a quarter of a group's budget, so that a flood of adverts leaves enough for the others. While
    Redis is unreachable each replica counts for itself.

    Args:
        prefix: prefix of all Redis keys.
        kind: tells the budget of pictures from that of messages.
    """

    def __init__(self, redis: Redis, prefix: str, clock: Clock, kind: str = "budget") -> None:
        self._redis = redis
        self._prefix = f"{prefix}:mod"
        self._clock = clock
        self._kind = kind
        self._local: LRUCache[str, int] = LRUCache(LOCAL_COUNTERS)

    async def take(self, group_id: int, author_id: int, limit: int) -> NoVerdictReason | None:
        """Counts one judgement; returns the exceeded budget, None if it fits."""
        key = f"{self._prefix}:{{{group_id}}}:{self._kind}:{self._clock.now().date().isoformat()}"
        if await self._count(f"{key}:{author_id}") > max(limit // AUTHOR_SHARE, 1):
            return NoVerdictReason.AUTHOR_BUDGET
        return NoVerdictReason.BUDGET if await self._count(key) > limit else None

    async def _count(self, key: str) -> int:
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.incr(key)
                pipe.expire(key, 2 * DAY_S)
                return int((await pipe.execute())[0])
        except REDIS_ERRORS:
            self._local[key] = self._local.get(key, 0) + 1
            return self._local[key]


class Judge:
    """Judges messages.

    Args:
        models_id: names the models that may answer now. It is part of the cache key, since other models give other
            verdicts.
    """

    def __init__(
        self,
        models: VerdictModels,
        models_id: Callable[[], str],
        cache: VerdictCache,
        budget: Budget,
        consent: RemoteConsent,
    ) -> None:
        self._models = models
        self._models_id = models_id
        self._cache = cache
        self._budget = budget
        self._consent = consent

    async def judge(self, message: GroupMessage, normal: Normal, settings: GroupSettings) -> Judgement:
        """Returns the verdict on a message, from the cache where possible, or the reason why there is none.

        `normal` is the author's own text, without quoted and forwarded ones.
        """
        local_only = not await self._consent.is_allowed(settings)
        parts = collect_parts(message, normal)
        content = [text for part in parts for text in (part.name, part.text)]
        key = CacheKey.create(
            message.group_id, message.author.id, PROMPT_VERSION, self._models_id(), str(local_only),
            settings.house_rules, *content,
        )  # fmt: skip

        async def ask() -> Judgement:
            if spent := await self._budget.take(settings.group_id, message.author.id, settings.budget):
                return Unjudged(spent)
            prompt = render_prompt(parts, name=message.author.name, house_rules=settings.house_rules)
            return await self._ask(message, normal, prompt, local_only=local_only)

        return await self._cache.get_or_ask(key, ask)

    async def _ask(self, message: GroupMessage, normal: Normal, prompt: str, *, local_only: bool) -> Judgement:
        chat = chat_ref(Surface.TELEGRAM, message.group_id)
        model = self._models.create_moderation_model(CONTEXT, local_only=local_only, chat=chat)
        try:
            answer = await model.ask(INSTRUCTIONS, prompt)
        except ContentRefused as error:
            return Unjudged(NoVerdictReason.REFUSED, error.provider)
        except ConsentNeeded:
            return Unjudged(NoVerdictReason.NO_CONSENT)
        except (RequestRejected, ContextWindowExceeded) as error:
            log.warning("moderation.request_rejected", group_id=message.group_id, error=type(error).__name__)
            return Unjudged(NoVerdictReason.REJECTED)
        except NoUsableAnswer:
            return Unjudged(NoVerdictReason.MALFORMED)
        except (AllProvidersFailed, ProviderError):
            return Unjudged(NoVerdictReason.OUTAGE)
        verdict = answer.value
        if verdict.evidence is not None:
            verdict = verdict.model_copy(update={"evidence": verdict.evidence[:MAX_EVIDENCE].strip() or None})
        evidence = locate_evidence(verdict, message, normal)
        judged = Judged(verdict, evidence, answer.provider, answer.model, answer.input_tokens, answer.output_tokens)
        if evidence is Evidence.FORWARDED:
            # A forward without own words has nothing that could be "quoted".
            judged = replace(judged, verdict=verdict.model_copy(update={"about": About.AUTHOR}))
        return judged


def locate_evidence(verdict: Verdict, message: GroupMessage, normal: Normal) -> Evidence:
    """Returns where a message contains a verdict's evidence; both are compared in folded form."""
    if verdict.category in {Category.OK, Category.UNSURE}:
        return Evidence.OWN
    wanted = normalise(verdict.evidence or "").folded
    is_quotation_judged = message.quotes_outside and verdict.about is About.QUOTED
    if letter_weight(wanted) < SHORTEST_EVIDENCE:
        return Evidence.QUOTED if is_quotation_judged else Evidence.MISSING
    links = normalise("\n".join((*message.links, *message.buttons))).folded
    if any(_contains_words(text, wanted) for text in (normal.folded, normalise(normal.text).folded, links)):
        return Evidence.OWN
    if message.is_forward and not normal.text and _contains_words(normalise(message.forwarded).folded, wanted):
        return Evidence.FORWARDED
    if verdict.about is About.PROFILE and _contains_words(normalise(message.author.name).folded, wanted):
        return Evidence.NAME
    if is_quotation_judged or (message.quotes_outside and _contains_words(normalise(message.quoted).folded, wanted)):
        return Evidence.QUOTED
    return Evidence.MISSING


def _contains_words(text: str, wanted: str) -> bool:
    """Returns whether a text contains the evidence with at least one of its words whole.

    Models cut their quotations in the middle of a word, at one end or at both.
    """
    return any(_holds_a_word(text, wanted, at.start()) for at in re.finditer(re.escape(wanted), text))


def _holds_a_word(text: str, wanted: str, at: int) -> bool:
    end = at + len(wanted)
    words = _WORD.findall(wanted)
    if at > 0 and _is_within_word(text[at - 1], wanted[0]):
        words = words[1:]
    if end < len(text) and _is_within_word(wanted[-1], text[end]):
        words = words[:-1]
    return bool(words)


def _is_within_word(left: str, right: str) -> bool:
    """Returns whether two neighbouring characters are of one word; scripts without spaces have a word a character."""
    return left.isalnum() and right.isalnum() and "W" not in map(unicodedata.east_asian_width, (left, right))
