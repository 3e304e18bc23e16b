"""`/language`, `/persona` and `/forget` in the console."""

import json

import pytest

from tests.support.fake_llm.server import LLMServer
from tests.support.terminal import Opener

pytestmark = pytest.mark.integration


async def test_language_and_persona_hold_until_they_are_forgotten(opened: Opener, server: LLMServer) -> None:
    async with opened({"a": server.url}) as session:
        session.type("/language xx")
        await session.until("sets the language of these messages: en, ru, auto.")
        session.type("/language ru", "/persona teacher", "hello there")
        await session.until("Теперь сообщения на русском.")
        await session.until("Роль в этом разговоре: Учитель")
        await session.until("Hello")
        session.type("/forget")
        await session.until("/forget yes стирает")
        session.type("/forget yes", "hello again")
        await session.until("стёрто.")
        await session.until("Hello")
    asked = [json.dumps(request.json, ensure_ascii=False) for request in server.requests]
    assert "Ты терпеливый учитель." in asked[0]
    assert "учитель" not in asked[-1]
    assert "hello there" not in asked[-1]
