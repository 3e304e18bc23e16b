"""Checks the locked dependencies against known vulnerabilities, where a database of them is reachable.

Ends with 1 if one of them is vulnerable. Without a database it says so and ends with 0: a machine without network
must be able to pass.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
TIMEOUT_S = 180


def main() -> int:
    """Audits each lock file; returns the exit code."""
    codes = [_audit(lock) for lock in LOCKS]
    return max(codes)


def _audit(lock: str) -> int:
    command = (
        sys.executable, "-m", "pip_audit", "--requirement", str(ROOT / lock), "--require-hashes", "--disable-pip",
        "--format", "json", "--progress-spinner", "off", "--timeout", "10",
    )  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)  # noqa: S603 - a fixed command
    except subprocess.TimeoutExpired:
        return report(lock, None)
    return report(lock, done.stdout)


def report(lock: str, output: str | None) -> int:
    """Prints the result for a lock file and returns the exit code.

    Args:
        lock: the name of the file.
        output: the JSON of pip-audit; None, or anything else, if no database answered.
    """
    try:
        dependencies: Sequence[Mapping[str, Any]] = json.loads(output or "")["dependencies"]
    except (ValueError, LookupError, TypeError):
        dependencies = ()
    checked = [each for each in dependencies if "skip_reason" not in each]
    if not checked:
        sys.stdout.write(f"CI: no database of vulnerabilities is reachable, {lock} was not checked\n")
        return 0
    vulnerable = [(each, flaw) for each in checked for flaw in each.get("vulns", ())]
    for dependency, flaw in vulnerable:
        fixed = ", ".join(flaw.get("fix_versions", ())) or "no version yet"
        sys.stdout.write(f"CI: {dependency['name']} {dependency['version']} has {flaw['id']}, fixed in {fixed}\n")
    sys.stdout.write(
        f"CI: {len(checked)} of {len(dependencies)} packages of {lock} were checked for known vulnerabilities, "
        f"{len({dependency['name'] for dependency, _ in vulnerable})} have one\n"
    )
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
