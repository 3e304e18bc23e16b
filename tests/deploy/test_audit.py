"""The audit of the locked dependencies, by the output of pip-audit."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SKIPPED = {"name": "a", "skip_reason": "Dependency not found and could not be audited: a (1.0)"}
CLEAN = {"name": "b", "version": "1.0", "vulns": []}
FLAWED = {"name": "c", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["1.1"], "description": "bad"}]}


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci/audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("output", "code", "said"),
    [
        # Nothing answers, or every package is unknown: said, and no failure.
        (None, 0, "was not checked"),
        ("", 0, "was not checked"),
        ("connection refused", 0, "was not checked"),
        ("[]", 0, "was not checked"),
        (json.dumps({"dependencies": [SKIPPED]}), 0, "was not checked"),
        (json.dumps({"dependencies": [SKIPPED, CLEAN]}), 0, "1 of 2 packages of x.lock were checked"),
        (json.dumps({"dependencies": [CLEAN, FLAWED]}), 1, "c 1.0 has PYSEC-1, fixed in 1.1"),
    ],
)
def test_report_distinguishes_clean_vulnerable_and_unchecked(
    audit: ModuleType, capsys: pytest.CaptureFixture[str], output: str | None, code: int, said: str
) -> None:
    assert audit.report("x.lock", output) == code
    assert said in capsys.readouterr().out


def test_every_lock_file_is_audited_by_ci(audit: ModuleType) -> None:
    assert {path.name for path in ROOT.glob("*.lock")} == set(audit.LOCKS)
    assert ".venv/bin/python .ci/audit.py\n" in (ROOT / ".ci/run").read_text(encoding="utf-8")
