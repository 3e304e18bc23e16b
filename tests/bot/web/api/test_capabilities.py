"""Embeddings, transcriptions and the battleground through the endpoint."""

import json
from pathlib import Path
from typing import Any, Literal

import aiohttp
import openai
import pytest

from services.api.tokens import TokenLimits, TokenStore
from tests.support.api_harness import OTHER, TOKEN, ApiHarness, endpoint
from tests.support.fake_llm.server import LLMServer, answer, cut, status
from tests.support.web_client import WebClient

pytestmark = pytest.mark.integration

MESSAGES: Any = [{"role": "user", "content": "Hello?"}]
SAME_MODEL = {"EMBEDDING_PROVIDERS": '{"a": ["e"], "b": ["e", "f"]}'}
VOICE = {"VOICE_PROVIDERS": '{"a": ["w"], "b": ["w"]}'}


def embedding_requests(server: LLMServer) -> list[Any]:
    """Return the bodies of the requests for vectors."""
    return [request.json for request in server.other_requests if request.path.endswith("/embeddings")]


@pytest.mark.parametrize("form", [openai.omit, "float"])  # the client asks for base64 by itself
async def test_embeddings_keep_the_order_over_batches(
    first: LLMServer, tmp_path: Path, *, form: openai.Omit | Literal["float"]
) -> None:
    first.max_batch = 7
    texts = ["x" * (number + 1) for number in range(20)]
    async with endpoint(tmp_path, {"a": first.url}, EMBEDDING_PROVIDERS='{"a": ["e"]}') as api:
        found = await api.client.embeddings.create(model="auto", input=texts, encoding_format=form)
        again = await api.client.embeddings.create(model="a/e", input="one")
    assert [round(row.embedding[0]) for row in found.data] == [len(text) for text in texts]
    assert [row.index for row in found.data] == list(range(20))
    assert found.model == "e"
    assert found.usage.prompt_tokens == 20
    assert len(again.data[0].embedding) == 8
    # The limit is learned from the first refusal.
    assert [len(body["input"]) for body in embedding_requests(first)][:4] == [20, 7, 7, 6]


async def test_embeddings_follow_what_the_console_sets(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    """Its address and key are those of the provider, whichever capability uses them."""
    variables = {"EMBEDDING_PROVIDERS": '{"a": ["e"]}', "SECRETS_KEY": "a-random-text-of-more-than-32-characters"}
    async with endpoint(tmp_path, {"a": first.url}, **variables) as api:
        await api.client.embeddings.create(model="auto", input="one")
        changes = {"A_BASE_URL": second.url, "A_API_KEY": "kx-of-the-console"}
        await api.services.llm.configuration.save(changes, 0, note="moved", revision=0)
        await api.client.embeddings.create(model="auto", input="two")
    assert len(embedding_requests(first)) == 1
    async with endpoint(tmp_path, {"a": first.url}, **variables) as api:
        await api.client.embeddings.create(model="auto", input="three")
    assert len(embedding_requests(second)) == 2
    assert second.other_requests[-1].headers["authorization"] == "Bearer kx-of-the-console"


async def test_embeddings_fall_back_within_the_same_model(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, **SAME_MODEL) as api:
        create = api.client.embeddings.create
        await create(model="auto", input="one")
        first.capability_behaviour = status(503)
        assert (await create(model="auto", input="two")).model == "e"
        assert [body["model"] for body in embedding_requests(second)] == ["e"]
        second.capability_behaviour = status(503)
        with pytest.raises(openai.InternalServerError) as caught:
            await create(model="auto", input="three")
        assert caught.value.code == "all_providers_failed"
        # A provider that fails at embeddings may well chat.
        assert (await api.client.chat.completions.create(model="auto", messages=MESSAGES)).model == "a/m"
        totals = api.services.operators.totals
        assert (await totals.of_speaker("api:editor", totals.today)).requests >= 3
    assert "f" not in [body["model"] for body in embedding_requests(second)]


async def test_vectors_of_another_size_are_that_providers_failure_after_a_restart_too(
    first: LLMServer, second: LLMServer, tmp_path: Path
) -> None:
    providers = {"a": first.url, "b": second.url}
    async with endpoint(tmp_path, providers, **SAME_MODEL) as api:
        assert len((await api.client.embeddings.create(model="auto", input="one")).data[0].embedding) == 8
    first.dimensions = 5
    async with endpoint(tmp_path, providers, **SAME_MODEL) as api:
        found = await api.client.embeddings.create(model="auto", input="one")
        shorter = await api.client.embeddings.create(model="b/f", input="one", dimensions=4)
    assert len(found.data[0].embedding) == 8
    assert len(embedding_requests(second)) == 2
    assert len(shorter.data[0].embedding) == 4


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"model": "nowhere", "input": "x"}, openai.NotFoundError),
        ({"model": "auto", "input": [1, 2, 3]}, openai.BadRequestError),
        ({"model": "auto", "input": [[1, 2]]}, openai.BadRequestError),
        ({"model": "auto", "input": ""}, openai.BadRequestError),
        ({"model": "auto", "input": []}, openai.BadRequestError),
        ({"model": "auto", "input": ["x"] * 2049}, openai.BadRequestError),
        ({"model": "auto", "input": "x", "dimensions": 0}, openai.BadRequestError),
    ],
)
async def test_broken_requests_for_embeddings_ask_no_provider(
    first: LLMServer, tmp_path: Path, *, fields: dict[str, Any], kind: type[openai.APIStatusError]
) -> None:
    async with endpoint(tmp_path, {"a": first.url}, EMBEDDING_PROVIDERS='{"a": ["e"]}') as api:
        with pytest.raises(kind):
            await api.client.embeddings.create(**fields)
    assert not embedding_requests(first)


async def test_a_token_embeds_with_its_models_only(first: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url}, EMBEDDING_PROVIDERS='{"a": ["e"]}') as api:
        store = TokenStore(
            api.services.infra.database, api.services.infra.clock, {"editor": TOKEN}, api.services.llm.budgets
        )
        await store.change("editor", TokenLimits(models=("a/m",)), 1)
        with pytest.raises(openai.APIStatusError):
            await api.client.embeddings.create(model="auto", input="x")
    assert not embedding_requests(first)


async def test_speech_is_transcribed_by_the_first_that_answers(
    first: LLMServer, second: LLMServer, tmp_path: Path
) -> None:
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, **VOICE) as api:
        create = api.client.audio.transcriptions.create
        heard = await create(model="auto", file=("note.ogg", b"OggS\r\n--\x00\xff\r\n", "audio/ogg"), language="en")
        first.capability_behaviour = status(500)
        second.transcript = "From the second"
        plain = await create(model="a/w", file=("note.ogg", b"OggS"), response_format="text")
    assert heard.text == "Hello from the recording"
    assert str(plain).strip() == "From the second"


async def test_silence_asks_one_other_candidate_and_cools_no_one_down(
    first: LLMServer, second: LLMServer, tmp_path: Path
) -> None:
    first.transcript = second.transcript = " "
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, **VOICE) as api:
        create = api.client.audio.transcriptions.create
        for _ in range(2):
            assert (await create(model="auto", file=("note.ogg", b"OggS"))).text == ""
        second.transcript = "Something after all"
        assert (await create(model="auto", file=("note.ogg", b"OggS"))).text == "Something after all"
    assert [len(server.other_requests) for server in (first, second)] == [3, 3]


async def test_a_form_without_a_recording_is_refused(first: LLMServer, tmp_path: Path) -> None:
    async with endpoint(tmp_path, {"a": first.url}, VOICE_PROVIDERS='{"a": ["w"]}') as api:
        for file in (("note.ogg", b""),):
            with pytest.raises(openai.BadRequestError):
                await api.client.audio.transcriptions.create(model="auto", file=file)
        with pytest.raises(openai.NotFoundError):
            await api.client.audio.transcriptions.create(model="x/y", file=("note.ogg", b"OggS"))
        page = await api.web.get("/v1/audio/transcriptions", method="POST", data=b"{}")
    assert page.status == 400
    assert not first.other_requests


async def compare(api: ApiHarness, **changes: object) -> tuple[int, list[Any], bytes]:
    """Compare two models; returns the status, the events and the body."""
    body = {
        "model_a_backend_id": "a", "model_a": "m", "model_b_backend_id": "b", "model_b": "n", "messages": MESSAGES,
        **changes,
    }  # fmt: skip
    url = f"http://127.0.0.1:{api.port}/battleground/compare/stream"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers={"Authorization": f"Bearer {TOKEN}"}) as response,
    ):
        raw = await response.read()
    lines = [line.removeprefix(b"data: ") for line in raw.split(b"\n\n") if line.startswith(b"data: {")]
    return response.status, [json.loads(line) for line in lines], raw


async def test_two_models_answer_side_by_side(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    first.default, second.default = answer("From the first"), answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        code, events, raw = await compare(api)
        options = (await api.web.get("/models/battleground")).json
    texts = {side: "".join(e.get("delta", "") for e in events if e["side"] == side) for side in ("a", "b")}
    assert (code, texts) == (200, {"a": "From the first", "b": "From the second"})
    assert raw.endswith(b"data: [DONE]\n\n")
    assert {event["side"]: event["model"] for event in events if event.get("done")} == {"a": "a/m", "b": "b/n"}
    assert {(option["backend_id"], option["model"]) for option in options} >= {("a", "m"), ("b", "n")}


async def test_a_comparison_is_voted_on_once_by_its_token(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    """The votes are those of /compare in the chat."""
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        _, events, _ = await compare(api)
        (number,) = {event["comparison_id"] for event in events if event.get("done")}
        vote = {"comparison_id": number, "winner": "b"}
        foreign = WebClient(api.port, OTHER)
        assert (await foreign.get("/battleground/vote", method="POST", data=json.dumps(vote).encode())).status == 404
        page = await api.web.get("/battleground/vote", method="POST", data=json.dumps(vote).encode())
        assert (page.status, page.json["winner"], page.json["model_a"]) == (200, "b", "a/m")
        again = await api.web.get(
            "/battleground/vote", method="POST", data=json.dumps({**vote, "winner": "a"}).encode()
        )
        assert (again.status, again.json["error"]["code"]) == (409, "already_voted")
        wrong = await api.web.get(
            "/battleground/vote", method="POST", data=json.dumps({**vote, "winner": "c"}).encode()
        )
        assert wrong.status == 400
        standings = (await api.web.get("/battleground/votes")).json
        assert [(each["model"], each["wins"], each["losses"]) for each in standings] == [("b/n", 1, 0), ("a/m", 0, 1)]
        assert [each.model for each in await api.services.chat.votes.standings()] == ["b/n", "a/m"]


async def test_no_other_provider_steps_in_within_a_side(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    first.default, second.default = status(500), answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        _, events, _ = await compare(api)
        second.default = status(500)
        code, _, raw = await compare(api)
    (failed,) = [event for event in events if "error" in event]
    assert failed["side"] == "a"
    assert "".join(event.get("delta", "") for event in events if event["side"] == "b") == "From the second"
    assert (code, json.loads(raw)["error"]["code"]) == (503, "all_providers_failed")


async def test_a_side_that_breaks_off_says_so(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    first.default, second.default = cut(2), answer("From the second")
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        _, events, _ = await compare(api)
    (failed,) = [event for event in events if "error" in event]
    assert (failed["side"], failed["error"]["code"]) == ("a", "interrupted")


@pytest.mark.parametrize(
    "changes",
    [
        {"model_b_backend_id": "a", "model_b": "m"},
        {"model_a_backend_id": "nowhere"},
        {"model_b": "zzz"},
        {"model_a": ""},
        {"model_a": None},
        {"messages": []},
        {"messages": "Hello"},
    ],
)
async def test_a_comparison_of_an_invalid_pair_is_a_400(
    first: LLMServer, second: LLMServer, tmp_path: Path, *, changes: dict[str, Any]
) -> None:
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}) as api:
        code, _, _ = await compare(api, **changes)
    assert code == 400
    assert not first.requests + second.requests
