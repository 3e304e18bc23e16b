"""Pictures of providers in their forms, and failover between them, over HTTP on loopback."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic_ai.usage import RequestUsage

from core.errors import BudgetExhausted, ContentRefused, ProviderError
from services.llm.capabilities.images import PICTURE_TOKENS, read_picture
from services.llm.request import RequestSpec
from services.llm.routing.faults.reasons import EmptyAnswer
from services.llm.routing.status import ProviderState
from tests.support.api_harness import endpoint
from tests.support.fake_llm.server import PNG, LLMServer, status

ENCODED = base64.b64encode(PNG).decode()
DATA_URL = f"data:image/png;base64,{ENCODED}"
JPEG = b"\xff\xd8\xff\xe0 a photo"
SPEC = RequestSpec("images", user="telegram:7", chat="telegram:7")
BOTH = '{"a": ["draw"], "b": ["draw"]}'
IN_CHAT = {"choices": [{"message": {"images": [{"image_url": {"url": DATA_URL}}]}}]}
FREE = RequestUsage(output_tokens=PICTURE_TOKENS)


@pytest.mark.parametrize(
    ("answer", "media_type"),
    [
        ({"data": [{"b64_json": ENCODED}]}, "image/png"),
        ({"data": [{"url": DATA_URL}]}, "image/png"),
        # Models that draw in chat: OpenRouter's, and one whose content is a list.
        ({"choices": [{"message": {"content": "", "images": [{"image_url": {"url": DATA_URL}}]}}]}, "image/png"),
        ({"candidates": [{"content": {"parts": [{"text": "Here"}, {"inlineData": {"mimeType": "image/png", "data":
         base64.b64encode(JPEG).decode()}}]}}]}, "image/jpeg"),
    ],
)  # fmt: skip
def test_each_form_of_an_answer_has_its_picture(answer: Any, media_type: str) -> None:
    (_, found), usage = read_picture(json.dumps(answer).encode(), FREE)
    assert (found, usage) == (media_type, FREE)


@pytest.mark.parametrize(
    "body",
    [
        b"{}", b"<html>", b'{"data": []}', b'{"data": [{"url": "https://example.org/a.png"}]}',
        b'{"data": [{"b64_json": "no base64!"}]}', b'{"data": [{"b64_json": "aGVsbG8="}]}',
        b'{"choices": [{"message": {"content": "I cannot draw."}}]}',
    ],
)  # fmt: skip
def test_an_answer_without_a_picture_is_a_failure(body: bytes) -> None:
    with pytest.raises(EmptyAnswer):
        read_picture(body, FREE)


def test_tokens_are_those_of_the_answer() -> None:
    answer = {"data": [{"b64_json": ENCODED}], "usage": {"input_tokens": 5, "output_tokens": 4160}}
    _, usage = read_picture(json.dumps(answer).encode(), FREE)
    assert (usage.input_tokens, usage.output_tokens) == (5, 4160)


async def test_the_next_provider_draws_where_one_fails(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    """Without a picture, too; chat and pictures have health of their own, and usage and budgets in common."""
    first.picture = {"data": []}
    providers = {"a": first.url, "b": second.url}
    prices = {"B_PRICES": '{"draw": [0, 40]}', "B_REMOTE": "true"}
    async with endpoint(tmp_path, providers, IMAGE_PROVIDERS=BOTH, **prices) as api:
        llm = api.services.llm
        image_generator = llm.capabilities.image_generator
        assert image_generator is not None
        picture = await image_generator.draw("a fox", SPEC)
        assert (picture.data, picture.media_type, picture.provider) == (PNG, "image/png", "b")
        assert llm.fallback.get_provider_status().providers[0].state is ProviderState.HEALTHY
        health = llm.capabilities.fallbacks["images"].get_provider_status()
        assert [each.state for each in health.providers] == [ProviderState.COOLING, ProviderState.PREFERRED]
        totals = api.services.operators.totals
        assert (await totals.of_speaker("telegram:7", totals.today)).cost_usd == pytest.approx(0.04)


async def test_a_picture_that_the_budget_may_not_pay_for_is_not_asked_for(first: LLMServer, tmp_path: Path) -> None:
    """The largest picture may cost 0.26 USD; this one costs 0.04, after which less is left."""
    settings = {"A_PRICES": '{"draw": [0, 40]}', "BUDGET_USER_DAY": "0.27", "A_REMOTE": "true"}
    async with endpoint(tmp_path, {"a": first.url}, IMAGE_PROVIDERS='{"a": ["draw"]}', **settings) as api:
        llm = api.services.llm
        image_generator = llm.capabilities.image_generator
        assert image_generator is not None
        await image_generator.draw("a fox", SPEC)
        await llm.budgets.settlements.flush()
        with pytest.raises(BudgetExhausted):
            await image_generator.draw("a fox", SPEC)
    assert len(first.other_requests) == 1


async def test_a_refused_format_is_left_out(first: LLMServer, tmp_path: Path) -> None:
    words = {"error": {"message": "Unknown parameter: 'response_format'.", "code": "unknown_parameter"}}
    first.capability_behaviour = status(400, words)
    async with endpoint(tmp_path, {"a": first.url}, IMAGE_PROVIDERS='{"a": ["draw"]}') as api:
        image_generator = api.services.llm.capabilities.image_generator
        assert image_generator is not None
        with pytest.raises(ProviderError):
            await image_generator.draw("a fox", SPEC)
        first.capability_behaviour = None
        await image_generator.draw("a fox", SPEC)
    asked = [request.json for request in first.other_requests if request.path.endswith("/images/generations")]
    assert [each.get("response_format") for each in asked] == ["b64_json", None, None]
    assert asked[0]["prompt"] == "a fox"


async def test_what_a_provider_declines_to_draw_is_not_drawn_elsewhere(
    first: LLMServer, second: LLMServer, tmp_path: Path
) -> None:
    first.capability_behaviour = status(400, {"error": {"message": "Your request was rejected by our safety system.",
                                                         "code": "moderation_blocked"}})  # fmt: skip
    async with endpoint(tmp_path, {"a": first.url, "b": second.url}, IMAGE_PROVIDERS=BOTH) as api:
        image_generator = api.services.llm.capabilities.image_generator
        assert image_generator is not None
        with pytest.raises(ContentRefused):
            await image_generator.draw("a fox", SPEC)
    assert not second.other_requests


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("google", "/v1beta/models/draw:generateContent",
         {"candidates": [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": ENCODED}}]}}]}),
        ("openrouter", "/v1/chat/completions", IN_CHAT),
    ],
)  # fmt: skip
async def test_models_that_draw_in_chat_are_asked_there(
    first: LLMServer, tmp_path: Path, *, kind: str, path: str, body: dict[str, Any]
) -> None:
    first.script(status(200, body), status(401))
    url = first.root if kind == "google" else first.url
    settings = {"A_KIND": kind, "A_API_KEY": "a-key", "IMAGE_PROVIDERS": '{"a": ["draw"]}'}
    async with endpoint(tmp_path, {"a": url}, **settings) as api:
        image_generator = api.services.llm.capabilities.image_generator
        assert image_generator is not None
        assert (await image_generator.draw("a fox", SPEC)).data == PNG
        with pytest.raises(ProviderError):
            await image_generator.draw("a fox", SPEC)
    asked = first.requests[0]
    assert asked.path == path
    assert "a fox" in str(asked.json)
    assert "odalities" in str(asked.json)
