"""The pages of documentation against the repository: links, anchors, and the names that they mention."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from bot.command_table import COMMANDS
from core.config.providers import ALIASES, ProviderVariables
from core.config.variables import CommonVariables

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", ".github/*.md")
    for path in ROOT.glob(pattern)
)
CURRENT = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""Without the changelog, which names removed things."""
FENCE = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")

OTHERS_VARIABLES = {
    "OPENAI_BASE_URL",  # of other programs that use the endpoint
    "OLLAMA_HOST",  # of Ollama
    "NOTES_TOKEN",  # of an MCP server
}
"""Names in the form of settings that belong to other programs; those of the deployment files are read from them."""
CONSOLE_COMMANDS = {"retry", "vote", "quit", "exit"}
"""In the terminal only, where buttons do this in Telegram."""
ELSEWHERE = {"newbot", "tmp"}
"""A command of BotFather, and a folder of the machine."""


@cache
def text(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def spans(page: Path) -> set[str]:
    """The pieces of code in the running text, each on one line."""
    return {" ".join(span.split()) for span in SPAN.findall(FENCE.sub("", text(page)))}


def code(page: Path) -> Iterator[str]:
    """The pieces of code of a page: those in the running text, and each line of a block."""
    yield from spans(page)
    for block in FENCE.finditer(text(page)):
        yield from block[0].splitlines()[1:-1]


@cache
def sources() -> str:
    """The program, its deployment and its benchmarks."""
    found = [path for name in ("bot", "core", "services", "benchmarks") for path in (ROOT / name).rglob("*.py")]
    deployed = [path for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    return "\n".join(path.read_text(encoding="utf-8") for path in (*found, *deployed, ROOT / "pyproject.toml"))


@cache
def repository() -> frozenset[str]:
    """The files and folders, each also by the ends of its path, as in `routing/rules.py`."""
    tops = [path for path in ROOT.iterdir() if path.name not in {".git", ".venv", "data", "test-results"}]
    paths = [each for top in tops for each in (top, *top.rglob("*")) if "__pycache__" not in each.parts]
    return frozenset(
        "/".join(path.relative_to(ROOT).parts[-length:])
        for path in paths
        for length in range(1, len(path.relative_to(ROOT).parts) + 1)
    )


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of the headings, as GitHub forms them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip() for heading in headings]
    return frozenset(heading.replace(" ", "-") for heading in plain)


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_relative_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", SPAN.sub("", FENCE.sub("", text(page))))
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / page.parent / path).resolve() if path else ROOT / page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target.relative_to(ROOT)), link


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_settings_exist(page: Path) -> None:
    """A variable of a provider has the prefix of any id."""
    suffixes = tuple(f"_{name}" for name in ProviderVariables.variable_names())
    known = {*CommonVariables.variable_names(), *ALIASES, *OTHERS_VARIABLES}
    named = {
        name
        for piece in code(page)
        for name in re.findall(r"(?:^|\s)((?:<ID>|[A-Z][A-Z0-9]*)(?:_[A-Z0-9]+)+)(?=[=`\s.,:)]|$)", piece)
    }
    deployed = set(re.findall(r"\$\{([A-Z_]+)", sources()))
    unknown = {name for name in named - known - deployed if not name.endswith(suffixes)}
    assert {name for name in unknown if not re.search(rf"^ *{name}\b", sources(), re.MULTILINE)} == set()


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_commands_exist(page: Path) -> None:
    """A name with a slash is a command of the bot, of the terminal, or a path of the HTTP server or of the machine."""
    named = {match[1] for piece in spans(page) if (match := re.match(r"/([a-z_]+)(?= |$)", piece))}
    paths = {name for name in named if re.search(rf"[\"'/ ]/?{name}(?=[/\"' :]|$)", sources())}
    assert named - COMMANDS.keys() - CONSOLE_COMMANDS - ELSEWHERE - paths == set()


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_files_exist(page: Path) -> None:
    """A name with the ending of a source, or a path below a folder of the repository."""
    named = {
        name.rstrip("/")
        for piece in code(page)
        for name in re.findall(r"(?<![\w/.:-])[\w.*-]+(?:/[\w.*-]+)*", piece)
        if re.search(r"\w\.(py|md|toml|yaml|jsonl|npz|ftl|lock)$", name)
        or re.match(r"(bot|core|services|tests|benchmarks|deploy|docs)/[\w-]", name)
    }
    examples = {"mine.jsonl", "FILE.jsonl", "deploy/.env", "vNNNN_", "inbox.lock"}
    missing = {name for name in named if name not in repository() and not any(each in name for each in examples)}
    assert {name for name in missing if "*" not in name or not list(ROOT.glob(f"**/{name}"))} == set()


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_events_and_metrics_exist(page: Path) -> None:
    """`component.event` of the log, and `understudy_...` of the metrics."""
    components = "|".join(sorted(set(re.findall(r"log\.\w+\(\s*\"([a-z_]+)\.", sources()))))
    events = {piece for piece in spans(page) if re.fullmatch(rf"({components})\.[a-z_]+", piece)} - repository()
    stored = {"inbox.db", "inbox.lock", "inbox.failure"}
    assert {event for event in events - stored if f'"{event}"' not in sources()} == set()
    metrics = {match[1] for piece in spans(page) if (match := re.match(r"(understudy_[a-z_]+)\b", piece))}
    shortened = {metric: metric.removeprefix("understudy_").removesuffix("_total") for metric in metrics}
    declared = {metric for metric, name in shortened.items() if f'"{name}"' in sources()}
    assert metrics - declared - {"understudy_bot"} == set()


@pytest.mark.parametrize("page", CURRENT, ids=str)
def test_programs_and_their_options_exist(page: Path) -> None:
    """`python -m MODULE --option`, `make TARGET`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w.$()/-]+):", makefile.replace("$(VENV)", ".venv"), re.MULTILINE))
    for piece in code(page):
        for command in re.split(r"[|&;]", piece.partition("  #")[0]):
            if match := re.match(r"\s*make ([\w./-]+)", command):
                assert match[1] in targets, piece
            if match := re.search(r"python3? -m ((?:bot|core|services|benchmarks|tests)\b[\w.]*)(.*)", command):
                module = ROOT / match[1].replace(".", "/")
                entry = next(
                    (each for each in (module.with_suffix(".py"), module / "__main__.py") if each.exists()), None
                )
                assert entry is not None, piece
                options = set(re.findall(r"(?<= )--[a-z-]+", match[2]))
                offered = entry.read_text(encoding="utf-8") + sources() * ("benchmarks" in match[1])
                assert {option for option in options if f'"{option}"' not in offered} == set(), piece
