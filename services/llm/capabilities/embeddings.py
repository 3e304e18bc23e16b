"""Embeddings with fallback within one space: a model, and the dimensions of its first answer.

Vectors of different models do not compare, so another provider may step in only with the same model; a vector of
another size is that provider's failure.
"""

import glob
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from pydantic_ai.embeddings import EmbeddingModel
from pydantic_ai.embeddings.settings import EmbeddingSettings
from pydantic_ai.exceptions import ModelHTTPError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelRequest, UserPromptPart
from pydantic_ai.usage import RequestUsage
from sqlalchemy import select

from core.config.providers import ProviderKind, ProviderSettings
from core.db.database import Database
from core.db.tables import EmbeddingSpaceRow
from core.errors import UnknownProvider
from services.llm.capabilities.asking import ask_first
from services.llm.providers.builder import ModelBuilder
from services.llm.providers.spec import ModelSpec, model_family
from services.llm.request import Candidate, ModelChoice, RequestSpec
from services.llm.routing.fallback import LLMProviderFallback
from services.llm.server_words import find_message
from services.llm.usage import text_tokens

log = structlog.get_logger()

AUTO = "auto"
"""The first space."""
MAX_DIMENSIONS = 65_536


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of one request to a provider; more texts are sent in several.

    Args:
        texts: maximum number of texts by kind of provider.
        other_texts: maximum for other kinds. A server that takes fewer says so, which is remembered.
        tokens: maximum estimated tokens of all texts.
    """

    texts: Mapping[ProviderKind, int]
    other_texts: int = 256
    tokens: int = 100_000


BATCHES = BatchLimits({ProviderKind.OPENAI: 2048, ProviderKind.AZURE_OPENAI: 2048, ProviderKind.GOOGLE: 100})


@dataclass(frozen=True, slots=True)
class Space:
    """Providers whose vectors compare.

    Args:
        model: the model that all of them serve.
        members: ids of the providers, each with its own name of the model.
    """

    model: str
    members: tuple[tuple[str, str], ...]

    @property
    def patterns(self) -> tuple[str, ...]:
        """The members as model patterns of a `RequestSpec`."""
        return tuple(glob.escape(f"{provider}/{model}") for provider, model in self.members)


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of their texts.

    Args:
        model: the space.
        provider: the provider of the last batch.
    """

    vectors: Sequence[Sequence[float]]
    model: str
    provider: str
    input_tokens: int


class Embeddings:
    """Embeds texts.

    Args:
        fallback: the providers of EMBEDDING_PROVIDERS, with a health of their own.
        builder: builds the clients of the providers.
        database: keeps the dimensions of each space.
    """

    def __init__(
        self,
        fallback: LLMProviderFallback,
        builder: ModelBuilder,
        database: Database,
        batches: BatchLimits = BATCHES,
    ) -> None:
        self._fallback = fallback
        self._builder = builder
        self._database = database
        self._batches = batches
        self._dimensions: dict[str, int] = {}
        self._learned: dict[str, int] = {}
        """Texts in a request by provider, where its server named a lower limit."""

    @property
    def spaces(self) -> Sequence[Space]:
        """The spaces, that of the first model of the first provider first."""
        members: dict[str, list[tuple[str, str]]] = {}
        for provider in self._fallback.providers:
            for model in provider.models:
                members.setdefault(model_family(provider, model), []).append((provider.id, model))
        return [Space(model, tuple(found)) for model, found in members.items()]

    def find(self, name: str) -> tuple[Space, ModelChoice | None]:
        """Returns the space of a name, and the member that is asked first: `auto`, a model, or `<provider>/<model>`.

        Raises:
            UnknownProvider: there is none.
        """
        spaces = self.spaces
        for space in spaces:
            if name in {AUTO, space.model}:
                return space, None
        for space in spaces:
            for provider, model in space.members:
                if name == f"{provider}/{model}":
                    return space, ModelChoice(provider, model)
        raise UnknownProvider(name, [space.model for space in spaces])

    async def embed(
        self, texts: Sequence[str], spec: RequestSpec, name: str = AUTO, dimensions: int | None = None
    ) -> Embedded:
        """Embeds texts, in batches where they are many.

        Args:
            texts: texts to embed, at least one.
            spec: the request; its models and choice are set to those of the space.
            name: name of the space.
            dimensions: wanted size of the vectors, where the model can shorten them.

        Raises:
            UnknownProvider: there is no such space.
            ProviderError: no provider of the space answered.
            StorageError: the dimensions of the space cannot be read.
        """
        space, choice = self.find(name)
        allowed = tuple(each for each in space.members if spec.allows(*each))
        spec = replace(spec, models=Space(space.model, allowed).patterns or ("-",), choice=choice)
        wanted = dimensions or await self._known_dimensions(space.model)
        vectors: list[Sequence[float]] = []
        tokens, provider = 0, ""
        while len(vectors) < len(texts):
            batch, provider, used = await self._embed_batch(texts[len(vectors) :], spec, dimensions, wanted)
            if wanted is None:
                wanted = await self._remember(space.model, len(batch[0]))
            vectors += batch
            tokens += used
        return Embedded(vectors, space.model, provider, tokens)

    async def _embed_batch(
        self, texts: Sequence[str], spec: RequestSpec, dimensions: int | None, wanted: int | None
    ) -> tuple[Sequence[Sequence[float]], str, int]:
        """Embeds as many of the texts as the provider that answers takes at once."""

        async def call(candidate: Candidate) -> tuple[Sequence[Sequence[float]], RequestUsage]:
            model = _build(self._builder.spec(candidate.provider, candidate.model))
            settings = EmbeddingSettings(dimensions=dimensions) if dimensions is not None else None
            batch = self._cut(candidate.provider, texts)
            while True:
                try:
                    result = await model.embed(list(batch), input_type="document", settings=settings)
                except ModelHTTPError as error:
                    fewer = _smaller_batch(error, len(batch))
                    if fewer is None:
                        raise
                    log.info("embedding.batch_reduced", provider=candidate.provider.id, texts=fewer)
                    self._learned[candidate.provider.id] = fewer
                    batch = batch[:fewer]
                else:
                    _require_vectors(result.embeddings, len(batch), wanted)
                    return result.embeddings, _with_tokens(result.usage, batch)

        first = self._cut(None, texts)
        sent: list[ModelMessage] = [ModelRequest([UserPromptPart(text) for text in first])]
        served = await ask_first(self._fallback, spec, sent, call)
        return served.value, served.candidate.provider.id, served.usage.input_tokens

    def _cut(self, provider: ProviderSettings | None, texts: Sequence[str]) -> Sequence[str]:
        """Returns the first texts that fit into one request."""
        limits = self._batches
        most = limits.other_texts
        if provider is not None:
            most = self._learned.get(provider.id, limits.texts.get(provider.kind, limits.other_texts))
        tokens = 0
        for index, text in enumerate(texts[:most]):
            tokens += text_tokens(text)
            if tokens > limits.tokens and index:
                return texts[:index]
        return texts[:most]

    async def _known_dimensions(self, model: str) -> int | None:
        if model not in self._dimensions:
            async with self._database.reading() as session:
                found = await session.scalar(
                    select(EmbeddingSpaceRow.dimensions).where(EmbeddingSpaceRow.model == model)
                )
            if found is not None:
                self._dimensions[model] = found
        return self._dimensions.get(model)

    async def _remember(self, model: str, dimensions: int) -> int:
        """Stores the dimensions of a space; if another replica stored them first, its value wins."""
        statement = self._database.insert(EmbeddingSpaceRow).values(model=model, dimensions=dimensions)
        async with self._database.session() as session:
            await session.execute(statement.on_conflict_do_nothing(index_elements=["model"]))
        return await self._known_dimensions(model) or dimensions


def _build(spec: ModelSpec) -> EmbeddingModel:
    """Builds a model. The SDK of its kind is imported here only, since each takes up to two seconds."""
    if spec.provider.kind is ProviderKind.GOOGLE:
        from pydantic_ai.embeddings.google import GoogleEmbeddingModel
        from pydantic_ai.providers.google import GoogleProvider

        from services.llm.providers.google import build_google_client

        return GoogleEmbeddingModel(spec.wire_name, provider=GoogleProvider(client=build_google_client(spec)))
    from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
    from pydantic_ai.providers.openai import OpenAIProvider

    from services.llm.providers.openai import build_azure_client, build_client

    match spec.provider.kind:
        case ProviderKind.AZURE_OPENAI:
            client = build_azure_client(spec)
        case ProviderKind.MISTRAL:
            client = build_client(spec, version="/v1")
        case _:
            client = build_client(spec)
    return OpenAIEmbeddingModel(spec.wire_name, provider=OpenAIProvider(openai_client=client))


_BATCH_WORDS = re.compile(r"\bbatch\b|too many (inputs|texts)|array (too long|length)|maximum.*inputs", re.IGNORECASE)


def _smaller_batch(error: ModelHTTPError, sent: int) -> int | None:
    """Returns how many texts a server takes that refused the size of a batch; None where it refused something else."""
    words = find_message(error.body)
    if sent <= 1 or error.status_code not in {400, 413, 422} or not _BATCH_WORDS.search(words):
        return None
    named = [int(number) for number in re.findall(r"\d{1,6}", words)]
    return max((number for number in named if 0 < number < sent), default=sent // 2)


def _require_vectors(vectors: Sequence[Sequence[float]], count: int, dimensions: int | None) -> None:
    """Checks the shape of an answer.

    Raises:
        UnexpectedModelBehavior: the shape differs; it counts as a failure of the provider.
    """
    sizes = {len(vector) for vector in vectors}
    if len(vectors) != count or len(sizes) != 1 or not 0 < min(sizes) <= MAX_DIMENSIONS:
        raise UnexpectedModelBehavior(f"{len(vectors)} vectors for {count} texts, of the sizes {sorted(sizes)[:5]}")
    if dimensions is not None and sizes != {dimensions}:
        raise UnexpectedModelBehavior(f"vectors of {min(sizes)} dimensions in a space of {dimensions}")
    if not all(math.isfinite(vector[0]) and math.isfinite(sum(vector)) for vector in vectors):
        raise UnexpectedModelBehavior("vectors with values other than numbers")


def _with_tokens(usage: RequestUsage, texts: Sequence[str]) -> RequestUsage:
    return usage if usage.input_tokens else replace(usage, input_tokens=sum(map(text_tokens, texts)))
