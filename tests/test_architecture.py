"""The three floors: an import goes down only, and what is heavy stays behind its door."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Import:
    """One imported name, such as `core.clock.Clock`, and where it stands."""

    module: str
    line: int
    name: str
    at_start: bool
    """Whether importing the module runs it; False within functions and for type checkers only."""

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.name}"

    def is_of(self, package: str) -> bool:
        return f"{self.name}.".startswith(f"{package}.")


def imports_in(source: str, module: str) -> Iterator[Import]:
    """Everything that a module imports, wherever it stands."""
    package = module.rpartition(".")[0]

    def names(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
            yield from (f"{above}{node.module or ''}.{alias.name}".replace("..", ".") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in {"import_module", "__import__"}:
            yield from (arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant))

    def walk(node: ast.AST, *, at_start: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            yield from (Import(module, child.lineno, name, at_start) for name in names(child))
            later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            typing_only = isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING")
            yield from walk(child, at_start=at_start and not later and not typing_only)

    return walk(ast.parse(source), at_start=True)


def modules(*packages: str) -> list[tuple[str, Path]]:
    """The modules of packages, by their dotted names."""
    files = [path for package in packages for path in sorted(ROOT.joinpath(*package.split(".")).rglob("*.py"))]
    files += [path for package in packages if (path := ROOT.joinpath(*package.split(".")).with_suffix(".py")).is_file()]
    assert files
    return [(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), path) for path in files]


def imports_of(*packages: str) -> list[Import]:
    """The imports of all their modules."""
    return [each for name, path in modules(*packages) for each in imports_in(path.read_text("utf-8"), name)]


RULES = {
    # The ground floor knows of nothing above it, of no surface and of no model.
    "core": ("services", "bot", "aiogram", "pydantic_ai", "aiohttp"),
    # What the bot can do, whatever it is asked through.
    "services": ("bot", "aiogram"),
    # The console, the check and the composition root do without Telegram: importing aiogram costs seconds.
    "bot.console": ("aiogram", "bot.telegram"),
    "bot.app": ("aiogram", "bot.telegram"),
    "bot.check": ("aiogram", "bot.telegram"),
    "bot.probing": ("aiogram", "bot.telegram"),
}


@pytest.mark.parametrize("package", RULES)
def test_a_floor_imports_nothing_from_above(package: str) -> None:
    """Not even within a function or for type checkers."""
    found = [each for each in imports_of(package) for banned in RULES[package] if each.is_of(banned)]
    assert list(map(str, found)) == []


def test_aiogram_is_loaded_for_telegram_only() -> None:
    """Neither it nor what imports it comes in with a module outside `bot.telegram`."""
    outside = [each for each in imports_of("core", "services", "bot") if not each.module.startswith("bot.telegram")]
    found = [each for each in outside if each.at_start and (each.is_of("aiogram") or each.is_of("bot.telegram"))]
    assert list(map(str, found)) == []


def test_aiohttp_is_one_modules_business() -> None:
    """What providers are reached through is seen nowhere else in the services, nor loaded before it is needed."""
    found = {each.module for each in imports_of("services") if each.is_of("aiohttp") or each.is_of("yarl")}
    assert found == {"services.llm.transport"}
    assert not [each for each in imports_of("services") if each.at_start and each.is_of("services.llm.transport")]


def test_nothing_that_is_shipped_imports_the_tests() -> None:
    """The tests do not ship."""
    found = [each for each in imports_of("core", "services", "bot") if each.is_of("tests")]
    assert list(map(str, found)) == []


@pytest.mark.parametrize(
    ("source", "name", "at_start"),
    [
        ("import aiogram.types", "aiogram.types", True),
        ("import x, aiogram as a", "aiogram", True),
        ("from aiogram import Bot", "aiogram.Bot", True),
        ("from . import telegram", "bot.telegram", True),  # relative, as from bot.app
        ("from .telegram import daemon", "bot.telegram.daemon", True),
        ("try:\n    import aiogram\nexcept ImportError: pass", "aiogram", True),
        ("class A:\n    import aiogram", "aiogram", True),
        ("def f():\n    import aiogram", "aiogram", False),
        ("async def f():\n    if x:\n        from aiogram import Bot", "aiogram.Bot", False),
        ("if TYPE_CHECKING:\n    import aiogram", "aiogram", False),
        ("importlib.import_module('aiogram')", "aiogram", True),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, name: str, *, at_start: bool) -> None:
    """The rules above are as good as what they look at."""
    found = [each for each in imports_in(source, "bot.app") if each.name == name]
    assert [each.at_start for each in found] == [at_start]


def test_every_rule_finds_its_modules() -> None:
    """A package that was moved would otherwise be guarded by a test that looks at nothing."""
    assert {name for name, _ in modules("bot.console")} >= {"bot.console", "bot.console.session"}
    assert [name for name, _ in modules("bot.app")] == ["bot.app"]
    assert len(imports_of("core", "services")) > 100


def test_only_the_queue_knows_the_library_under_it() -> None:
    """It can be changed for another, and what is private to it is relied on in one place."""
    outside = [each for each in imports_of("core", "services", "bot") if each.is_of("dbos")]
    assert outside
    assert {each.module for each in outside} == {"services.inbox.queue"}
    # Importing it takes half a second, which the console need not wait for.
    assert not [each for each in outside if each.at_start]


def test_the_inbox_knows_nothing_of_what_it_keeps() -> None:
    """Neither of Telegram nor of conversations: a job's payload is a text to it."""
    above = ("aiogram", "aiohttp", "pydantic_ai", "bot", "services.chat", "services.llm")
    inbox = [each for each in imports_of("services.inbox") if any(each.is_of(package) for package in above)]
    assert not inbox, "\n".join(map(str, inbox))
