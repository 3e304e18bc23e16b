"""Measures how the code reads: sizes, prose, duplicate names, and the files that one message enters.

Run with `python -m benchmarks.codebase`. With `--lines PATH...` it lists the docstring and comment lines of these files
or folders that use a word from the first two columns of the prose table.

Prose is every docstring, string under an assignment, and comment. A word list is a rate per 1,000 words of it.
"""

import argparse
import ast
import asyncio
import io
import re
import statistics
import sys
import tempfile
import threading
import tokenize
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
PACKAGES = ("bot", "core", "services")
IDLE_S = 2.0
"""A time without a message, in which the loops in the background have their turn."""
DONE_S = 0.3
"""A job ends within this time after its answer is seen."""
PEOPLE = re.compile(r"\b(nobody|somebody|anybody|everybody|whoever|whom|whose|whatever|wherever)\b", re.IGNORECASE)
WHAT = re.compile(r"\bwhat\b", re.IGNORECASE)
TERMS = re.compile(
    r"\b(return|rais|retr|timeout|cach|queue|lock|task|thread|lease|replica|backoff|cooldown|idempot|schedul|expir"
    r"|transaction|session|request|response|handler|callback|config|default|exception|error|limit|async|await|stream"
    r"|index|key|token|buffer|event|connection|client|server|parse|serial|valid|render|classif|enqueu)[a-z]*",
    re.IGNORECASE,
)


def sources(*paths: Path) -> list[Path]:
    """Returns the Python files under the given files or folders, migrations excluded."""
    found = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))]
    return [file for file in found if "versions" not in file.parts]


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Yields (line number, text) of each line of a docstring or comment."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield from enumerate(text.splitlines(), node.lineno)
            case _:
                pass
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type:", "# pyright", "# fmt")):
            yield token.start[0], token.string.lstrip("# ")


def measure(files: list[Path]) -> dict[str, str]:
    """Returns the figures of a code base by name."""
    trees = {file: ast.parse(file.read_text("utf-8")) for file in files}
    functions = sorted(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    classes = Counter(node.name for tree in trees.values() for node in tree.body if isinstance(node, ast.ClassDef))
    text = " ".join(line for file in files for _, line in prose(file.read_text("utf-8")))
    words = len(re.findall(r"[A-Za-z']+", text))
    lines = sum(len(file.read_text("utf-8").splitlines()) for file in files)
    folders = Counter(file.parent for file in files if file.name != "__init__.py")
    folder, most = folders.most_common(1)[0]

    def rate(pattern: re.Pattern[str]) -> str:
        return f"{1000 * len(pattern.findall(text)) / max(words, 1):.1f}"

    return {
        "modules / lines": f"{sum(file.name != '__init__.py' for file in files)} / {lines:,}",
        "most modules in one folder": f"{most} ({folder.relative_to(ROOT)})",
        "function lines, median / 90% / most": f"{statistics.median(functions):.0f}"
        f" / {functions[int(len(functions) * 0.9)]} / {functions[-1]}",
        "class names used twice": f"{sum(n > 1 for n in classes.values())} of {len(classes)}: "
        + " ".join(sorted(name for name, n in classes.items() if n > 1)),
        "words of prose": f"{words:,}",
        "nobody, somebody, whoever, whom ... per 1,000": rate(PEOPLE),
        '"what" per 1,000': rate(WHAT),
        "technical terms per 1,000": rate(TERMS),
    }


class EnteredFiles:
    """Records the files of the project whose code is called, in the threads that start after it, while it counts."""

    def __init__(self) -> None:
        self._found: set[str] | None = None
        self._prefixes = tuple(f"{ROOT / package}/" for package in PACKAGES)
        threading.setprofile(self._look)

    @contextmanager
    def counting(self) -> Generator[set[str]]:
        """Yields the set that grows while the context is open, for the calling thread too."""
        found = self._found = set[str]()
        sys.setprofile(self._look)
        try:
            yield found
        finally:
            sys.setprofile(None)
            self._found = None

    def _look(self, frame: FrameType, event: str, _argument: object) -> None:
        name = frame.f_code.co_filename
        if self._found is not None and event == "call" and name.startswith(self._prefixes):
            self._found.add(name.removeprefix(f"{ROOT}/"))


async def entered_by_a_message() -> tuple[list[str], list[str]]:
    """Returns the files that are entered while one private message is answered, and those entered without any message.

    A message is counted from its arrival until its answer is delivered and its job is done, in all threads. It is the
    second of its chat, so that what is built once does not count.
    """
    from tests.support.bot_harness import BotHarness  # noqa: PLC0415 - its imports take seconds

    entered = EnteredFiles()
    with tempfile.TemporaryDirectory() as directory:
        harness = BotHarness(Path(directory))
        await harness.open()
        try:
            await harness.start()
            await harness.asks("the first warms what is built once")
            await harness.named(1)
            with entered.counting() as idle:
                await asyncio.sleep(IDLE_S)
            with entered.counting() as busy:
                await harness.asks("the second is counted")
                await asyncio.sleep(DONE_S)
        finally:
            await harness.close()
            threading.setprofile(None)
    return sorted(busy), sorted(idle)


def main() -> None:
    """Prints the table, or the lines to look at."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", nargs="+", type=Path, metavar="PATH", help="list the lines to look at instead")
    parser.add_argument("--message", action="store_true", help="list the files that one message enters")
    options = parser.parse_args()
    if options.lines:
        for file in sources(*options.lines):
            for number, line in sorted(prose(file.read_text("utf-8"))):
                if PEOPLE.search(line) or WHAT.search(line):
                    print(f"{file}:{number}: {line.strip()}")
        return
    for name, value in measure(sources(*(ROOT / package for package in PACKAGES))).items():
        print(f"{name:48} {value}")
    entered, idle = asyncio.run(entered_by_a_message())
    print(f"{'files entered by a message':48} {len(entered)}, {len(set(entered) & set(idle))} of them when idle too")
    if options.message:
        print("\n".join(f"{name}{' (idle too)' if name in idle else ''}" for name in entered))


if __name__ == "__main__":
    main()
