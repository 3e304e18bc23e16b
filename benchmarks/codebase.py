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
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).parents[1]
PACKAGES = ("bot", "core", "services")
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
    """Returns the figures of a code base, by what they are called."""
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


async def entered_by_a_message() -> list[str]:
    """Returns the files of the project whose code runs while one private message is answered by the daemon."""
    from tests.support.bot_harness import BotHarness  # noqa: PLC0415 - its imports take seconds

    entered: set[str] = set()
    prefixes = tuple(str(ROOT / package) for package in PACKAGES)

    def look(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(prefixes):
            entered.add(frame.f_code.co_filename)

    with tempfile.TemporaryDirectory() as directory:
        harness = BotHarness(Path(directory))
        await harness.open()
        try:
            await harness.start()
            await harness.asks("the first warms what is built once")
            threading.setprofile_all_threads(look) if sys.version_info >= (3, 12) else threading.setprofile(look)
            sys.setprofile(look)
            await harness.asks("the second is counted")
            sys.setprofile(None)
            threading.setprofile(None)
        finally:
            await harness.close()
    return sorted(str(Path(name).relative_to(ROOT)) for name in entered)


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
    entered = asyncio.run(entered_by_a_message())
    print(f"{'files entered by a message':48} {len(entered)}")
    if options.message:
        print("\n".join(entered))


if __name__ == "__main__":
    main()
