"""`python -m bot train`, from the command line to what a running bot takes."""

import asyncio
import json
from pathlib import Path

import pytest

from bot.__main__ import main
from core.clock import SystemClock
from core.db.database import Database
from services.moderation.spam_score.store import BASE, ScoreStore, StoredWeights

LINES = [
    {"label": label, "text": f"{word} {source} {number}", "source": source}
    for label, word in (("spam", "zorb"), ("ham", "quux"))
    for source in ("one", "two", "three")
    for number in range(12)
]


@pytest.fixture(autouse=True)
def elsewhere(clean_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVAILABLE_PROVIDERS", "{}")


def write(lines: list[dict[str, object]], name: str = "mine.jsonl") -> str:
    """A file of examples."""
    Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return name


async def stored() -> StoredWeights | None:
    """The base that a bot of this installation would load."""
    database = Database("sqlite:///data/understudy.db")
    await database.start()
    found = await ScoreStore(database, SystemClock()).changes({BASE: None})
    await database.close()
    return found.get(BASE)


def test_without_a_file_it_shows_the_figures_of_the_starter_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train"]) == 0
    out = capsys.readouterr().out
    assert "each scored by a model that knew none of its sources" in out
    assert all(source in out for source in ("en-developers", "ru-roditeli"))
    assert not Path("data").exists()


def test_training_replaces_the_base(capsys: pytest.CaptureFixture[str]) -> None:
    """And a reset takes it away."""
    assert main(["train", write(LINES), "--without-starter"]) == 0
    assert "36 spam and 36 ham of 3 sources; 0 copies left out." in capsys.readouterr().out
    base = asyncio.run(stored())
    assert base is not None
    assert base.weights is not None
    assert (base.spam_count, base.ham_count) == (36, 36)

    assert main(["train", "--reset"]) == 0
    assert asyncio.run(stored()) is None


def test_the_starter_set_is_trained_on_as_well_unless_told_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", write(LINES), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "19 sources" in out
    assert out.endswith("Nothing was changed (--dry-run).\n")
    assert not Path("data").exists()


def test_figures_that_flatter_are_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [{name: line[name] for name in ("label", "text")} for line in LINES]
    assert main(["train", write(lines), "--without-starter", "--dry-run"]) == 0
    assert "at random, because the examples name no sources: the figures are better" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([*LINES, {"label": "maybe", "text": "x"}], "mine.jsonl: line 73: label: "),
        (LINES[:10], "mine.jsonl: 10 spam and 0 ham; "),
        ([], "mine.jsonl: 0 spam and 0 ham; "),
    ],
)
def test_a_file_that_will_not_do_is_a_line_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], lines: list[dict[str, object]], says: str
) -> None:
    assert main(["train", write(lines), "--without-starter"]) == 1
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith(says)
    assert not Path("data").exists()


def test_a_file_that_cannot_be_read_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "missing.jsonl"]) == 1
    Path("latin.jsonl").write_bytes('{"label": "ham", "text": "é"}'.encode("latin-1"))
    assert main(["train", "latin.jsonl"]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "missing.jsonl: No such file or directory"
    assert second == "latin.jsonl: is not UTF-8"
