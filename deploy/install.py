# ruff: noqa: INP001 - a script, not a package
"""Installs a lock file with pip and shows the progress in one line: `python deploy/install.py requirements.lock`.

Standard library only, since it runs in an empty virtual environment.
"""

import subprocess
import sys
from pathlib import Path

COUNTED = ("Collecting ", "Processing ", "Requirement already satisfied")


def main(lock: Path) -> int:
    """Install the packages of a lock file. Returns pip's exit code, after its whole output where it failed."""
    total = sum("==" in line for line in lock.read_text(encoding="utf-8").splitlines())
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip = subprocess.Popen(  # noqa: S603 - the pip of this environment
        [*command, "--progress-bar", "off", "--require-hashes", "-r", str(lock)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
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
    return code


def _show(text: str, end: str = "") -> None:
    # A terminal shows one line that changes, a log one line each.
    is_terminal = sys.stdout.isatty()
    sys.stdout.write(f"\r{text:<70}{end}" if is_terminal else f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
