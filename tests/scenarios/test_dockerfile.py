"""The Dockerfile, carried out without an engine: its steps in a folder, as an unprivileged user, then its entry point.

Two steps cannot be had here. Creating the user needs root, so that only its words are checked; and the dependencies are
those of this environment in place of an installation, whose command is checked.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.support.bot_harness import FIRST, BotHarness
from tests.support.processes.redis_server import free_port

ROOT = Path(__file__).parents[2]
UNPRIVILEGED = 65534

pytestmark = pytest.mark.timeout(180)  # a virtual environment, and all sources compiled


@dataclass
class Stage:
    """One stage of the Dockerfile."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.steps if name == instruction]


def parse_dockerfile() -> list[Stage]:
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    stages: list[Stage] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        if name == "FROM":
            stages.append(Stage(rest))
        else:
            stages[-1].steps.append((name, rest.strip()))
    return stages


def find_account() -> tuple[int | None, list[str]]:
    """Returns the user to run steps as, and the prefix of each command.

    Where the tests run as root and another user cannot read this Python, it is root without any capability.
    """
    if os.getuid() != 0:
        return None, []
    probe = [sys.executable, "-c", "import aiogram"]
    with contextlib.suppress(OSError):
        if subprocess.run(probe, user=UNPRIVILEGED, check=False, capture_output=True).returncode == 0:
            return UNPRIVILEGED, []
    return None, ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]


class Image:
    """A root file system that steps are carried out in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.workdir = root
        self.user, self.prefix = find_account()
        self.own(root)

    def own(self, path: Path) -> None:
        if self.user is not None:
            os.chown(path, self.user, self.user)

    def place(self, text: str) -> str:
        """Puts the absolute paths of a command below the root."""
        return re.sub(r"(?<![\w/.=-])/(venv|app|data)\b", lambda found: str(self.root / found[1]), text)

    def run(self, command: str) -> None:
        done = subprocess.run(
            [*self.prefix, "/bin/sh", "-c", self.place(command)], cwd=self.workdir, user=self.user,
            capture_output=True, text=True, timeout=50, check=False,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.root)},
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stdout, done.stderr)

    def install(self, command: str) -> None:
        """Stands in for the installation of the dependencies."""
        assert "--require-hashes -r requirements.lock" in command
        assert command.endswith("&& rm requirements.lock")
        (packages,) = (self.root / "venv/lib").glob("python*/site-packages")
        (packages / "locked.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
        self.run("rm requirements.lock")

    def enter(self, folder: str) -> None:
        self.workdir = self.root / folder.lstrip("/")
        self.workdir.mkdir(exist_ok=True)
        self.own(self.workdir)

    def carry_out(self, name: str, text: str) -> None:
        match name:
            case "WORKDIR":
                self.enter(text)
            case "COPY":
                self.copy(*text.split())
            case "RUN" if "pip install" in text:
                self.install(text)
            case "RUN":
                self.run(re.sub(r"^python ", f"{sys.executable} ", text))
            case _:
                pytest.fail(f"an unknown step: {name}")

    def copy(self, source: str, target: str) -> None:
        """Copies the sources that .dockerignore admits."""
        rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        assert f"!{source}" in rules, source
        goal = self.workdir / (target if target != "." else source)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, goal, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        else:
            shutil.copy(ROOT / source, goal)
        for path in (goal, *goal.rglob("*")):
            self.own(path)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, after every step of both stages."""
    root = tmp_path_factory.mktemp("image")
    for folder in (root, *root.parents):
        if folder.is_relative_to(tmp_path_factory.getbasetemp().parent):
            folder.chmod(folder.stat().st_mode | 0o755)
    built = Image(root)
    for name, text in parse_dockerfile()[0].steps:
        built.carry_out(name, text)
    yield built
    for folder in root.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)


def test_the_steps_leave_sources_compiled_and_nothing_else(image: Image) -> None:
    app = image.root / "app"
    assert sorted(path.name for path in app.iterdir()) == ["bot", "core", "services"]
    sources = [path for path in app.rglob("*.py") if path.name != "script.py.mako"]
    compiled = list(app.rglob("*.pyc"))
    assert len(sources) > 200
    assert len(compiled) == len(sources)
    assert all(path.stat().st_mode & stat.S_IROTH for path in sources)


def test_the_last_stage_holds_what_was_built_and_runs_as_its_own_user() -> None:
    build, last = parse_dockerfile()
    assert build.base == f"{last.base} AS build"
    assert last.all("COPY") == ["--from=build /venv /venv", "--from=build /app /app"]
    (create,) = last.all("RUN")
    assert "groupadd --system --gid 10001 understudy" in create
    assert "useradd --system --uid 10001 --gid 10001 --no-create-home" in create
    assert "install -d -o understudy -g understudy -m 0700 /data" in create
    assert last.all("USER") == ["10001:10001"]
    # After the user is set nothing is written any more.
    after = [name for name, _ in last.steps[[name for name, _ in last.steps].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


async def test_the_entry_point_answers_as_an_unprivileged_user(image: Image, empty_stage: BotHarness) -> None:
    """From the image alone, which it cannot write to."""
    stage = empty_stage
    _, last = parse_dockerfile()
    (entry,), (command,) = last.all("ENTRYPOINT"), last.all("CMD")
    python, *arguments = [*json.loads(entry), *json.loads(command)]
    data, passing = image.root / "data", image.root / "passing"
    for folder in (data, passing):
        folder.mkdir(mode=0o700)
        image.own(folder)
    for path in (image.root / "app", *(image.root / "app").rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    environment = {
        **stage.environment, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "HOME": str(data),
        "PATH": f"{image.root / 'venv/bin'}:/usr/bin:/bin", "TMPDIR": str(passing), "DATA_DIR": str(data),
        "WEB_PORT": str(free_port()),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *image.prefix, str(image.root / "venv/bin" / python), *arguments,
        cwd=image.root / "app", env=environment,
        preexec_fn=None if image.user is None else partial(os.setuid, image.user),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        question = stage.says("Is anybody out there?")
        answer = asyncio.create_task(stage.answer(after=question.id, timeout=45))
        ended = asyncio.create_task(process.wait())
        await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
        assert answer.done(), (await process.communicate())[1].decode()[-3000:]
        assert answer.result().text == FIRST
        process.send_signal(signal.SIGTERM)
        _, logged = await asyncio.wait_for(process.communicate(), 15)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0, logged.decode()[-2000:]
    assert data.stat().st_uid == (image.user or os.getuid())
    assert (data / "understudy.db").exists()
