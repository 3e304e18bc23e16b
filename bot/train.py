"""`python -m bot train`: trains the local spam score on own examples and measures it before it is used."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from core.clock import SystemClock
from core.config.settings import Settings
from core.db.database import Database, resolve_url
from core.errors import StorageError
from services.moderation.domain.policy import HIGH, VERY_HIGH
from services.moderation.spam_score.base_model import Example, MalformedExample, fit, read_examples, starter_examples
from services.moderation.spam_score.scorer import BASE, ScoreStore
from services.moderation.spam_score.validation import TooFewExamples, Validation, cross_validate, drop_duplicates
from services.moderation.spam_score.weights import Weights

THRESHOLDS = (50, HIGH, VERY_HIGH)
MOST_SOURCES = 50
"""Rows of the table by source; the largest sources come first."""


async def run(settings: Settings, file: Path | None, *, with_starter: bool = True, is_dry: bool = False) -> int:
    """Measures the score, and trains it where there is a file. Returns the exit code.

    Args:
        file: labelled examples, a JSON object per line; None measures the starter set only.
        with_starter: whether to train on the starter set as well.
        is_dry: measure only.

    Raises:
        StartupError: the database cannot be used.
    """
    try:
        own = await asyncio.to_thread(_read, file) if file is not None else []
        shipped = starter_examples() if with_starter or file is None else []
        examples = drop_duplicates([*own, *shipped])
        validation = await asyncio.to_thread(cross_validate, examples)
    except OSError as error:
        return _fail(f"{file}: {error.strerror or type(error).__name__}")
    except UnicodeDecodeError:
        return _fail(f"{file}: is not UTF-8")
    except (MalformedExample, TooFewExamples) as error:
        return _fail(f"{file or 'the starter set'}: {error}")
    _print_validation(validation, copies=len(own) + len(shipped) - len(examples))
    if file is None:
        return 0
    if is_dry:
        _print("Nothing was changed (--dry-run).")
        return 0
    weights = await asyncio.to_thread(fit, examples)
    if not await _replace(settings, weights, examples):
        return 1
    _print("This is the base now. Running bots notice within a minute; what groups have learned stays.")
    return 0


async def reset(settings: Settings) -> int:
    """Returns to the starter set. Returns the exit code.

    Raises:
        StartupError: the database cannot be used.
    """
    if not await _replace(settings, None, ()):
        return 1
    _print("The base is the starter set again. Running bots notice within a minute.")
    return 0


def _read(file: Path) -> list[Example]:
    with file.open(encoding="utf-8-sig") as lines:
        return list(read_examples(lines))


async def _replace(settings: Settings, weights: Weights | None, examples: Sequence[Example]) -> bool:
    """Stores the weights in the database. Returns whether it accepted them."""
    settings.prepare_data_dir()
    database = Database(resolve_url(settings))
    await database.start()
    try:
        store = ScoreStore(database, SystemClock())
        if weights is None:
            await store.remove(BASE)
        else:
            spam = sum(each.is_spam for each in examples)
            await store.replace(BASE, weights, spam_count=spam, ham_count=len(examples) - spam)
    except StorageError as error:
        _fail(str(error))
        return False
    finally:
        await database.close()
    return True


def _print_validation(validation: Validation, copies: int) -> None:
    total = validation.count(0)
    _print(f"{total.spam} spam and {total.ham} ham of {len(validation.sources)} sources; {copies} copies left out.")
    if validation.by_source:
        _print(f"Cross-validated in {validation.folds} parts, each scored by a model that knew none of its sources.")
    else:
        _print(
            f"Cross-validated in {validation.folds} parts at random, because {validation.note}: the figures are better"
        )
        _print("than what a group that the model does not know will see.")
    _print("")
    _print(f"{'score from':<24}{'precision':>10}{'recall':>8}{'false positives':>18}")
    for threshold in THRESHOLDS:
        tally = validation.count(threshold)
        _print(
            f"{threshold:<24}{tally.precision:>10.3f}{tally.recall:>8.3f}{_share(tally.false_positives, tally.ham):>18}"
        )
    _print("")
    _print(f"{f'by source, from {HIGH}':<24}{'precision':>10}{'recall':>8}{'false positives':>18}{'spam':>7}{'ham':>7}")
    sizes = {source: validation.count(HIGH, source) for source in validation.sources}
    largest = sorted(sizes, key=lambda source: -(sizes[source].spam + sizes[source].ham))
    for source in largest[:MOST_SOURCES]:
        tally = sizes[source]
        _print(
            f"{(source or '(not named)')[:23]:<24}{tally.precision:>10.3f}{tally.recall:>8.3f}"
            f"{_share(tally.false_positives, tally.ham):>18}{tally.spam:>7}{tally.ham:>7}"
        )
    if len(largest) > MOST_SOURCES:
        _print(f"... and {len(largest) - MOST_SOURCES} smaller ones")
    _print("")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole}" if whole else "no ham"


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _fail(reason: str) -> int:
    sys.stderr.write(reason + "\n")
    return 1
