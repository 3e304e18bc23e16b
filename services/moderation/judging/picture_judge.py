"""Judges pictures of newcomers by a model with vision, within a budget of their own. Opt-in; deletion at most.

Only the pictures are sent, so that the same picture under another caption costs no second request. A model without
vision is never asked, and a picture without a verdict passes: it is no outage, and nothing waits for it.
"""

from collections.abc import Callable
from typing import Protocol

import structlog

from core.errors import ContentRefused, ProviderError
from core.messages import Attachment, ChatRef, Surface, chat_ref
from services.llm.models.direct import Answer
from services.moderation.domain.message import GroupMessage, PictureRef
from services.moderation.domain.settings import GroupSettings
from services.moderation.domain.verdict import Evidence, Judged, Judgement, NoVerdictReason, Unjudged, Verdict
from services.moderation.judging.judge import CONTEXT, Budget, RemoteConsent
from services.moderation.judging.prompt import PICTURE_INSTRUCTIONS, PROMPT_VERSION
from services.moderation.judging.verdict_cache import CacheKey, VerdictCache

log = structlog.get_logger()

MAX_PICTURES = 3
"""Pictures of an album that are judged, the first ones."""


class PictureModel(Protocol):
    """A model that answers with verdicts on pictures."""

    async def ask(self, instructions: str, prompt: str, pictures: tuple[Attachment, ...] = ()) -> Answer[Verdict]:
        """Returns the verdict of the first candidate with vision that gives one."""
        ...


class PictureModels(Protocol):
    """Creates such models; implemented by the model factory."""

    def create_moderation_model(
        self, context: str, *, local_only: bool = False, chat: ChatRef | None = None
    ) -> PictureModel:
        """Returns a model for one chat; `local_only` excludes remote providers."""
        ...


class PictureSource(Protocol):
    """Fetches pictures."""

    async def fetch(self, picture: PictureRef) -> Attachment | None:
        """Returns a picture's content; None where it cannot be had, or is too large."""
        ...


class PictureJudge:
    """Judges pictures.

    Args:
        models_id: names the models that may answer now, for the cache key.
    """

    def __init__(
        self,
        models: PictureModels,
        models_id: Callable[[], str],
        source: PictureSource,
        cache: VerdictCache,
        budget: Budget,
        consent: RemoteConsent,
    ) -> None:
        self._models = models
        self._models_id = models_id
        self._source = source
        self._cache = cache
        self._budget = budget
        self._consent = consent

    async def judge(self, message: GroupMessage, settings: GroupSettings, limit: int) -> Judgement:
        """Returns the verdict on a message's pictures, or the reason why there is none.

        Args:
            message: message with at least one picture.
            settings: settings of the group.
            limit: judgements of pictures that the group allows a day.
        """
        pictures = message.pictures[:MAX_PICTURES]
        local_only = not await self._consent.is_allowed(settings)
        key = CacheKey.create(
            message.group_id, message.author.id, PROMPT_VERSION, "pictures", self._models_id(), str(local_only),
            *(picture.unique_id for picture in pictures),
        )  # fmt: skip

        async def ask() -> Judgement:
            if spent := await self._budget.take(settings.group_id, message.author.id, limit):
                return Unjudged(spent)
            found = [await self._source.fetch(picture) for picture in pictures]
            files = tuple(each for each in found if each is not None)
            if not files:
                return Unjudged(NoVerdictReason.REJECTED)
            return await self._ask(message.group_id, files, local_only=local_only)

        return await self._cache.get_or_ask(key, ask)

    async def _ask(self, group_id: int, files: tuple[Attachment, ...], *, local_only: bool) -> Judgement:
        model = self._models.create_moderation_model(
            CONTEXT, local_only=local_only, chat=chat_ref(Surface.TELEGRAM, group_id)
        )
        try:
            answer = await model.ask(PICTURE_INSTRUCTIONS, "Judge the pictures.", files)
        except ContentRefused as error:
            return Unjudged(NoVerdictReason.REFUSED, error.provider)
        except ProviderError as error:
            log.info("moderation.picture_not_judged", group_id=group_id, error=type(error).__name__)
            return Unjudged(NoVerdictReason.OUTAGE)
        return Judged(
            answer.value, Evidence.OWN, answer.provider, answer.model, answer.input_tokens, answer.output_tokens
        )
