"""The library: its functions, and the examples of `docs/library.md` as they stand there."""

import asyncio
import re
from pathlib import Path

import pytest

from core.errors import AllProvidersFailed, AnswerInterrupted, UnknownProvider
from services.llm import open_llm
from services.llm.openai_messages import InvalidRequest
from tests.support.fake_llm.server import LLMServer, answer, cut, status
from tests.support.settings import settings_for, variables_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "library.md").read_text(encoding="utf-8"), re.DOTALL)
HELLO = [{"role": "user", "content": "Hello?"}]
SAID = (
    ("a/m Good day", "An answer"),
    ("Good day", "A stream"),
    ("Good day", "An agent"),
    ("'primary_provider': 'a', 'fallback_provider': 'b', 'preferred_provider': None", "2 8"),
)
"""Words in the output of each example."""


@pytest.mark.parametrize(("example", "said"), list(zip(EXAMPLES, SAID, strict=True)))
async def test_examples_of_the_page_run(
    first: LLMServer,
    second: LLMServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    example: str,
    said: tuple[str, str],
) -> None:
    first.default = answer("Good day")
    monkeypatch.chdir(tmp_path)
    variables = variables_for(tmp_path, {"a": first.url, "b": second.url}, EMBEDDING_PROVIDERS='{"a": ["e"]}')
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    # In a thread, since an example has an event loop of its own.
    await asyncio.to_thread(exec, compile(example, "docs/library.md", "exec"), {"__name__": "__main__"})
    out = capsys.readouterr().out
    assert said[0] in out
    if said[1][0].isdigit():
        assert said[1] in out


async def test_another_provider_answers_a_script(first: LLMServer, second: LLMServer, tmp_path: Path) -> None:
    first.default, second.default = status(500), answer("From the second")
    async with open_llm(settings_for(tmp_path, {"a": first.url, "b": second.url})) as llm:
        assert await llm.chat_complete(HELLO, temperature=0.2) == ("b/m", "From the second")
        health = llm.get_provider_status().as_dict()["provider_health"]
        assert await llm.chat_complete(HELLO, model="b/n") == ("b/n", "From the second")
        with pytest.raises(UnknownProvider):
            await llm.chat_complete(HELLO, model="nowhere/m")
        with pytest.raises(UnknownProvider):
            await llm.embed(["x"])
        with pytest.raises(InvalidRequest):
            await llm.chat_complete([{"role": "wizard", "content": "x"}])
        second.default = status(500)
        with pytest.raises(AllProvidersFailed):
            await llm.chat_complete(HELLO)
    assert health == {
        "a": {"healthy": False, "configured": True, "available": False},
        "b": {"healthy": True, "configured": True, "available": True},
    }
    assert second.requests[0].json["temperature"] == 0.2
    # Nothing was stored: a script without embeddings needs no database.
    assert not list(tmp_path.iterdir())  # noqa: ASYNC240 - an empty folder


async def test_a_stream_of_a_script_never_goes_on_with_another_provider(
    first: LLMServer, second: LLMServer, tmp_path: Path
) -> None:
    first.default = cut(3)
    seen: list[str] = []

    async def collect() -> None:
        async with open_llm(settings_for(tmp_path, {"a": first.url, "b": second.url})) as llm:
            async for piece in llm.chat_complete_stream(HELLO):
                seen.append(piece)

    with pytest.raises(AnswerInterrupted):
        await collect()
    assert "".join(seen) == "The audience hears"
    assert not second.requests
