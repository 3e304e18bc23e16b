"""The errors that pydantic-ai raises for each fault of each wire format: the basis for classifying outcomes.

These are contract tests of the library; the reaction of the program is tested with
the fallback service.
"""

from collections.abc import Iterator

import pytest
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelOverloadedError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelServerError,
    ModelTimeoutError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
)

from core.config.providers import ProviderKind
from services.llm.providers.builder import ModelBuilder
from tests.support.fake_llm import server as llm
from tests.support.fake_llm.providers import MODELS, NETWORKED_KINDS, provider_at
from tests.support.fake_llm.server import LLMServer
from tests.support.routed_requests import ask

EACH_KIND = pytest.mark.parametrize("kind", NETWORKED_KINDS)
STREAMED = pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
EACH_SDK = pytest.mark.parametrize(
    "kind",
    [
        ProviderKind.OPENAI_COMPATIBLE,
        ProviderKind.ANTHROPIC,
        ProviderKind.GOOGLE,
        ProviderKind.GROQ,
        ProviderKind.MISTRAL,
    ],
)

STATUSES: list[tuple[llm.Behaviour, type[Exception], int]] = [
    (llm.status(400), ModelRequestRejectedError, 400),
    (llm.status(401), ModelAuthenticationError, 401),
    (llm.status(402), ModelQuotaExceededError, 402),
    (llm.status(403), ModelAuthenticationError, 403),
    (llm.status(404), ModelNotFoundError, 404),
    (llm.status(408), ModelHTTPError, 408),
    (llm.status(422), ModelRequestRejectedError, 422),
    (llm.status(429), ModelRateLimitError, 429),
    (llm.status(500), ModelServerError, 500),
    (llm.status(502), ModelServerError, 502),
    (llm.status(503), ModelUnavailableError, 503),
    (llm.status(504), ModelServerError, 504),
    (llm.status(529), ModelOverloadedError, 529),
    (llm.html_page(502), ModelServerError, 502),  # a proxy's error page
    (llm.context_exceeded(), ModelContextWindowExceededError, 400),
]


@EACH_KIND
@STREAMED
@pytest.mark.parametrize(("behaviour", "expected", "code"), STATUSES)
async def test_status(
    server: LLMServer,
    builder: ModelBuilder,
    kind: ProviderKind,
    behaviour: llm.Behaviour,
    expected: type[Exception],
    code: int,
    *,
    streamed: bool,
) -> None:
    """An HTTP error is of the class of its meaning, and knows its status."""
    server.script(behaviour)
    with pytest.raises(ModelHTTPError) as caught:
        await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert type(caught.value).__name__ == expected.__name__  # the library makes a class of its own of both
    assert isinstance(caught.value, expected)
    assert caught.value.status_code == code


@EACH_KIND
async def test_exhausted_quota_differs_from_a_rate_limit(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    """A 429, 400 or 402 for an empty account is distinguished from transient errors."""
    server.script(llm.quota_exceeded())
    with pytest.raises(ModelQuotaExceededError):
        await ask(builder.models[provider_at(server, kind), MODELS[kind]])


@EACH_KIND
async def test_retry_after(server: LLMServer, builder: ModelBuilder, kind: ProviderKind) -> None:
    """The error carries how long the provider wants to be left alone."""
    server.script(llm.status(429, headers={"retry-after": "7"}))
    with pytest.raises(ModelRateLimitError) as caught:
        await ask(builder.models[provider_at(server, kind), MODELS[kind]])
    assert caught.value.retry_after == 7


UNREADABLE: list[tuple[ProviderKind, llm.Behaviour, bool, type[Exception]]] = [
    # OpenAI wire, plain
    (ProviderKind.OPENAI_COMPATIBLE, llm.empty_body(), False, ModelAPIError),
    (ProviderKind.OPENAI_COMPATIBLE, llm.garbage_in_stream(), False, ModelAPIError),
    (ProviderKind.OPENAI_COMPATIBLE, llm.html_page(), False, UnexpectedModelBehavior),
    (ProviderKind.OPENAI_COMPATIBLE, llm.error_object_in_200(), False, UnexpectedModelBehavior),
    (ProviderKind.OPENAI_COMPATIBLE, llm.no_choices(), False, IndexError),  # bare, out of the library
    # OpenAI wire, streamed
    (ProviderKind.OPENAI_COMPATIBLE, llm.empty_body(), True, UnexpectedModelBehavior),
    (ProviderKind.OPENAI_COMPATIBLE, llm.empty_stream(), True, UnexpectedModelBehavior),
    (ProviderKind.OPENAI_COMPATIBLE, llm.html_page(), True, UnexpectedModelBehavior),
    (ProviderKind.OPENAI_COMPATIBLE, llm.error_object_in_200(), True, ModelServerError),
    (ProviderKind.OPENAI_COMPATIBLE, llm.garbage_in_stream(), True, ModelAPIError),
    (ProviderKind.OPENAI_COMPATIBLE, llm.no_choices(), True, ModelAPIError),
    (ProviderKind.OPENAI_COMPATIBLE, llm.no_finish_reason(), True, ModelAPIError),
    # Anthropic, plain
    (ProviderKind.ANTHROPIC, llm.empty_body(), False, ModelAPIError),
    (ProviderKind.ANTHROPIC, llm.garbage_in_stream(), False, ModelAPIError),
    (ProviderKind.ANTHROPIC, llm.html_page(), False, ModelAPIError),
    (ProviderKind.ANTHROPIC, llm.error_object_in_200(), False, TypeError),  # bare, out of the library
    # Anthropic, streamed
    (ProviderKind.ANTHROPIC, llm.empty_body(), True, UnexpectedModelBehavior),
    (ProviderKind.ANTHROPIC, llm.empty_stream(), True, UnexpectedModelBehavior),
    (ProviderKind.ANTHROPIC, llm.html_page(), True, UnexpectedModelBehavior),
    (ProviderKind.ANTHROPIC, llm.error_object_in_200(), True, ModelAPIError),
    (ProviderKind.ANTHROPIC, llm.garbage_in_stream(), True, ModelAPIError),
    # Google, plain
    (ProviderKind.GOOGLE, llm.garbage_in_stream(), False, ModelAPIError),
    (ProviderKind.GOOGLE, llm.html_page(), False, ModelAPIError),
    # Google, streamed
    (ProviderKind.GOOGLE, llm.empty_body(), True, UnexpectedModelBehavior),
    (ProviderKind.GOOGLE, llm.empty_stream(), True, UnexpectedModelBehavior),
    (ProviderKind.GOOGLE, llm.html_page(), True, ModelAPIError),
    (ProviderKind.GOOGLE, llm.error_object_in_200(), True, ModelServerError),
    (ProviderKind.GOOGLE, llm.garbage_in_stream(), True, ModelAPIError),
    # Groq, plain
    (ProviderKind.GROQ, llm.empty_body(), False, ModelAPIError),
    (ProviderKind.GROQ, llm.garbage_in_stream(), False, ModelAPIError),
    (ProviderKind.GROQ, llm.html_page(), False, ModelAPIError),
    (ProviderKind.GROQ, llm.error_object_in_200(), False, TypeError),  # bare, out of the library
    (ProviderKind.GROQ, llm.no_choices(), False, IndexError),  # the same
    # Groq, streamed
    (ProviderKind.GROQ, llm.empty_body(), True, UnexpectedModelBehavior),
    (ProviderKind.GROQ, llm.empty_stream(), True, UnexpectedModelBehavior),
    (ProviderKind.GROQ, llm.html_page(), True, UnexpectedModelBehavior),
    (ProviderKind.GROQ, llm.error_object_in_200(), True, ModelServerError),
    (ProviderKind.GROQ, llm.garbage_in_stream(), True, ModelAPIError),
    # Mistral, plain
    (ProviderKind.MISTRAL, llm.empty_body(), False, ModelAPIError),
    (ProviderKind.MISTRAL, llm.garbage_in_stream(), False, ModelAPIError),
    (ProviderKind.MISTRAL, llm.html_page(), False, ModelAPIError),
    (ProviderKind.MISTRAL, llm.error_object_in_200(), False, ModelAPIError),
    (ProviderKind.MISTRAL, llm.no_choices(), False, AssertionError),  # bare, out of the library
    # Mistral, streamed
    (ProviderKind.MISTRAL, llm.empty_body(), True, UnexpectedModelBehavior),
    (ProviderKind.MISTRAL, llm.empty_stream(), True, UnexpectedModelBehavior),
    (ProviderKind.MISTRAL, llm.html_page(), True, UnexpectedModelBehavior),
    (ProviderKind.MISTRAL, llm.error_object_in_200(), True, ModelAPIError),
    (ProviderKind.MISTRAL, llm.garbage_in_stream(), True, ModelAPIError),
    (ProviderKind.MISTRAL, llm.error_in_stream(), True, ModelAPIError),  # its class is lost, see below
]


@pytest.mark.parametrize(("kind", "behaviour", "streamed", "expected"), UNREADABLE)
async def test_unreadable_answer_with_status_200(
    server: LLMServer,
    builder: ModelBuilder,
    kind: ProviderKind,
    behaviour: llm.Behaviour,
    expected: type[Exception],
    *,
    streamed: bool,
) -> None:
    """A response without an answer raises, though not always an error class of the library."""
    server.script(behaviour)
    with pytest.raises(expected) as caught:
        await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert type(caught.value).__name__ == expected.__name__  # the library makes a class of its own of two


EMPTY: list[tuple[llm.Behaviour, str | None]] = [
    (llm.empty_answer(), None),
    (llm.thinking_only(), None),
    (llm.whitespace_only(), " \n \n"),
]


@EACH_KIND
@STREAMED
@pytest.mark.parametrize(("behaviour", "text"), EMPTY)
async def test_empty_answer_passes_for_a_success(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, behaviour: llm.Behaviour, text: str, *, streamed: bool
) -> None:
    """The library accepts these: the caller must require text or a tool call."""
    server.script(behaviour)
    response = await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert (response.text, response.finish_reason) == (text, "stop")


@pytest.mark.parametrize("kind", [ProviderKind.ANTHROPIC, ProviderKind.GOOGLE, ProviderKind.GROQ, ProviderKind.MISTRAL])
async def test_stream_without_a_finish_reason_passes_for_a_success(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    """Only the missing finish reason tells that it broke off: no profile makes the library raise here."""
    server.script(llm.no_finish_reason())
    provider = provider_at(server, kind)
    response = await ask(builder.models[provider, provider.default_model], streamed=True)
    assert (response.text, response.finish_reason) == ("Half an answer", None)


@EACH_KIND
@STREAMED
@pytest.mark.parametrize("behaviour", [llm.reset(), llm.closed_without_answer()], ids=["reset", "closed"])
async def test_connection_lost_before_any_byte(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, behaviour: llm.Behaviour, *, streamed: bool
) -> None:
    """It is told from a refused connection by its phase."""
    server.script(behaviour)
    with pytest.raises(ModelConnectionError) as caught:
        await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert caught.value.phase == "read"


@EACH_KIND
@STREAMED
async def test_connection_cut_in_mid_answer(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, *, streamed: bool
) -> None:
    """The same error as before the first byte: only the amount of output distinguishes them."""
    server.script(llm.cut(after_pieces=2))
    with pytest.raises(ModelConnectionError) as caught:
        await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=streamed)
    assert caught.value.phase == "read"


# The class of an error in a stream, where it is not the ordinary one; Mistral's SDK reads no errors in streams.
IN_STREAM = {ProviderKind.ANTHROPIC: ModelOverloadedError, ProviderKind.GOOGLE: ModelUnavailableError}


@pytest.mark.parametrize("kind", [kind for kind in NETWORKED_KINDS if kind is not ProviderKind.MISTRAL])
@pytest.mark.parametrize("after_pieces", [0, 2])
async def test_error_event_in_a_stream(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind, after_pieces: int
) -> None:
    """An error inside a 200 has the class and status it would have had outside, and says where it came."""
    server.script(llm.error_in_stream(after_pieces))
    with pytest.raises(ModelHTTPError) as caught:
        await ask(builder.models[provider_at(server, kind), MODELS[kind]], streamed=True)
    assert isinstance(caught.value, IN_STREAM.get(kind, ModelServerError))
    assert caught.value.in_stream


@pytest.fixture
def refusing() -> Iterator[str]:
    """A base URL that refuses connections."""
    with llm.refusing_url() as url:
        yield url


@EACH_SDK
async def test_refused_connection(server: LLMServer, builder: ModelBuilder, kind: ProviderKind, refusing: str) -> None:
    """No server listens: it fails while connecting."""
    with pytest.raises(ModelConnectionError) as caught:
        await ask(builder.models[provider_at(server, kind, base_url=refusing), MODELS[kind]])
    assert caught.value.phase == "connect"


@EACH_SDK
async def test_host_that_does_not_resolve(server: LLMServer, builder: ModelBuilder, kind: ProviderKind) -> None:
    """A wrong name fails while connecting."""
    with pytest.raises(ModelConnectionError) as caught:
        await ask(builder.models[provider_at(server, kind, base_url=llm.NO_SUCH_HOST_URL), MODELS[kind]])
    assert caught.value.phase == "connect"


@EACH_SDK
async def test_plain_http_port_fails_the_tls_handshake(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    """An https address of a plain server fails while connecting."""
    url = server.url.replace("http://", "https://")
    with pytest.raises(ModelConnectionError) as caught:
        await ask(builder.models[provider_at(server, kind, base_url=url), MODELS[kind]])
    assert caught.value.phase == "connect"


@EACH_SDK
async def test_black_hole_is_given_up_within_the_first_token_timeout(
    server: LLMServer, builder: ModelBuilder, kind: ProviderKind
) -> None:
    """A host that drops packets costs the first-token timeout at most."""
    async with llm.black_hole_url() as url:
        provider = provider_at(server, kind, base_url=url, first_token_timeout_s=0.2)
        with pytest.raises(ModelTimeoutError) as caught:
            await ask(builder.models[provider, MODELS[kind]])
    assert caught.value.phase == "connect"


async def test_key_stays_with_the_host_that_it_is_for() -> None:
    """A redirect to another host, or to another server on it, takes no key along, whichever header it is in."""
    async with LLMServer() as first, LLMServer() as other:
        other_host = other.root.replace("127.0.0.1", "localhost")
        for kind, elsewhere in (
            (ProviderKind.ANTHROPIC, other_host),
            (ProviderKind.GOOGLE, other.root),
            (ProviderKind.AZURE_OPENAI, other_host),
            (ProviderKind.GOOGLE, other_host),
            (ProviderKind.OPENAI, other_host),
        ):
            first.script(llm.status(307, b"", {"location": f"{elsewhere}/v1/messages"}))
            other.script(llm.status(401))
            built = ModelBuilder()
            settings = provider_at(first, kind)
            with pytest.raises(ModelHTTPError):
                await ask(built.models[settings, settings.default_model])
            await built.aclose()
            assert (first.requests[-1].bearer is not None, other.requests[-1].bearer) == (True, None)
