# ruff: noqa: INP001 - a script, not a package
"""Installs a lock file with pip and shows the progress in one line: `python deploy/install.py requirements.lock`.

Standard library only, since it runs in an empty virtual environment.
"""

import importlib.util
import subprocess
import sys
from pathlib import Path

COUNTED = ("Collecting ", "Processing ", "Requirement already satisfied")


SEEDED = ("setuptools", "pip")
"""Removed where they are not locked: nothing here uses them, and they take 17 MB. Python 3.11 puts setuptools into each
virtual environment, with a hook that every start imports. Pip returns for the next installation."""


def main(lock: Path) -> int:
    """Install the packages of a lock file. Returns pip's exit code, after its whole output where it failed."""
    locked = lock.read_text(encoding="utf-8").splitlines()
    total = sum("==" in line for line in locked)
    if importlib.util.find_spec("pip") is None:
        subprocess.run([sys.executable, "-m", "ensurepip"], check=True, stdout=subprocess.DEVNULL)
    # Each module is compiled at its first import: pip would compile five times as many, most never used.
    compiling = () if sys.dont_write_bytecode else ("--no-compile",)
    pip = _start_pip("install", *compiling, "--progress-bar", "off", "--require-hashes", "-r", str(lock))
    output: list[str] = []
    found = 0
    _show(f"Installing {lock.name}: looking at {total} packages ...")
    for line in pip.stdout or ():
        output.append(line)
        if line.startswith(COUNTED):
            found += 1
            _show(f"Installing {lock.name}: package {min(found, total)} of {total} ...")
        elif line.startswith("Installing collected packages"):
            _show(f"Installing {lock.name}: unpacking {found} packages ...")
    code = pip.wait()
    _show(f"Installing {lock.name}: {'done' if code == 0 else 'failed'}.", end="\n")
    if code != 0:
        sys.stderr.write("".join(output))
    else:
        named = {line.partition("==")[0] for line in locked}
        _start_pip("uninstall", "--yes", *(name for name in SEEDED if name not in named)).communicate()
    return code


def _start_pip(command: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - the pip of this environment
        [sys.executable, "-m", "pip", command, "--disable-pip-version-check", "--no-input", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _show(text: str, end: str = "") -> None:
    # A terminal shows one line that changes, a log one line each.
    is_terminal = sys.stdout.isatty()
    sys.stdout.write(f"\r{text:<70}{end}" if is_terminal else f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
