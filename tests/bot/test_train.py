"""`python -m bot train`, from the command line to the stored base model."""

import asyncio
import json
from pathlib import Path

import pytest

from bot import train
from bot.__main__ import main
from core.clock import SystemClock
from core.db.database import Database
from services.moderation.spam_score.base_model import starter_examples
from services.moderation.spam_score.scorer import BASE, ScoreStore, StoredWeights

pytestmark = pytest.mark.integration

LINES = [
    {"label": label, "text": f"{word} {source} {number}", "source": source}
    for label, word in (("spam", "zorb"), ("ham", "quux"))
    for source in ("one", "two", "three")
    for number in range(12)
]


@pytest.fixture(autouse=True)
def elsewhere(clean_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVAILABLE_PROVIDERS", "{}")


@pytest.fixture
def short_starter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes a tenth of the starter set: measuring all of it takes seconds, and is tested where it is measured."""
    monkeypatch.setattr(train, "starter_examples", lambda: starter_examples()[::10])


def write_examples(lines: list[dict[str, object]], name: str = "mine.jsonl") -> str:
    """Write a file of examples and return its name."""
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return name


async def stored_base() -> StoredWeights | None:
    """Return the base model that a bot would load."""
    database = Database("sqlite:///data/understudy.db")
    await database.start()
    found = await ScoreStore(database, SystemClock()).changes({BASE: None})
    await database.close()
    return found.get(BASE)


@pytest.mark.usefixtures("short_starter")
def test_train_without_a_file_measures_the_starter_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 0
    out = capsys.readouterr().out
    assert "each scored by a model that knew none of its sources" in out
    assert all(source in out for source in ("en-developers", "ru-roditeli"))
    assert not Path("data").exists()


def test_train_replaces_the_base_until_reset(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", write_examples(LINES), "--without-starter"]) == 0
    assert "36 spam and 36 ham of 3 sources; 0 copies left out." in capsys.readouterr().out
    base = asyncio.run(stored_base())
    assert base is not None
    assert base.weights is not None
    assert (base.spam_count, base.ham_count) == (36, 36)

    assert main(["train", "--reset"]) == 0
    assert asyncio.run(stored_base()) is None


@pytest.mark.usefixtures("short_starter")
def test_train_includes_the_starter_set_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", write_examples(LINES), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "44 sources" in out
    assert out.endswith("Nothing was changed (--dry-run).\n")
    assert not Path("data").exists()


def test_train_marks_optimistic_measurements(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{name: line[name] for name in ("label", "text")} for line in LINES]
    assert main(["train", write_examples(lines), "--without-starter", "--dry-run"]) == 0
    assert "at random, because the examples name no sources: the figures are better" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*LINES, {"label": "maybe", "text": "x"}], "mine.jsonl: line 73: label: "),
        (LINES[:10], "mine.jsonl: 10 spam and 0 ham; "),
        ([], "mine.jsonl: 0 spam and 0 ham; "),
    ],
)
def test_train_rejects_unusable_examples_in_one_line(
    capsys: pytest.CaptureFixture[str], lines: list[dict[str, object]], message: str
) -> None:
    assert main(["train", write_examples(lines), "--without-starter"]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(message)
    assert not Path("data").exists()


def test_train_reports_an_unreadable_file_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "missing.jsonl"]) == 1
    Path("latin.jsonl").write_bytes('{"label": "ham", "text": "é"}'.encode("latin-1"))
    assert main(["train", "latin.jsonl"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "missing.jsonl: No such file or directory"
    assert second == "latin.jsonl: is not UTF-8"
