"""The registry of personal data is complete: a table, a key or a file that it does not list fails here."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dbos._schemas.system_database as queue_schema

from core.db.database import FILE_NAME
from core.db.tables import Base
from services.privacy.registry import FILES, KEYS, QUEUE_TABLES, TABLES, Cascades

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")
QUEUE_IMPERSONAL = {
    "operation_outputs", "notifications", "workflow_events", "workflow_events_history", "streams",
    "workflow_schedules", "application_versions", "queues", "workflow_output", "dbos_migrations",
}  # fmt: skip
"""Tables of the library that no job of ours writes texts to: jobs have no steps and return nothing."""


def sources(word: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules that contain a word."""
    for floor in ("bot", "core", "services"):
        for path in sorted((ROOT / floor).rglob("*.py")):
            if word in (text := path.read_text(encoding="utf-8")):
                yield str(path.relative_to(ROOT)), ast.parse(text)


def writes_keys(tree: ast.Module) -> bool:
    """Return whether a module composes a Redis key: an f-string that begins with a prefix, or a sum with one."""

    def is_prefix(node: ast.expr) -> bool:
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        return name in {"prefix", "_prefix", "redis_prefix"}

    for node in ast.walk(tree):
        match node:
            case ast.JoinedStr(values=[ast.FormattedValue(value=first), ast.Constant(value=str(rest)), *_]):
                if is_prefix(first) and rest.startswith(":"):
                    return True
            case _:
                pass
    return False


def test_registry_lists_every_table() -> None:
    """The effect of `/forget` on a new table is decided in services/privacy/registry.py."""
    assert set(TABLES) == set(Base.metadata.tables)


def test_registry_cascades_follow_foreign_keys() -> None:
    for table, rules in TABLES.items():
        for rule in rules:
            if isinstance(rule, Cascades):
                keys = Base.metadata.tables[table].foreign_keys
                assert any(
                    key.column.table.name in {rule.table, "turns"} and key.ondelete == "CASCADE" for key in keys
                ), table


def test_registry_lists_every_table_of_the_queue() -> None:
    known = {table.name for table in queue_schema.SystemSchema.metadata_obj.tables.values()}
    assert known <= {*QUEUE_TABLES, *QUEUE_IMPERSONAL}


def test_registry_lists_every_module_that_writes_redis_keys() -> None:
    found = {path for path, tree in sources("prefix}") if writes_keys(tree) and not path.startswith("bot/composition/")}
    assert found - {"services/privacy/erasure.py"} == {family.source for family in KEYS}


def test_registry_lists_every_file() -> None:
    """Files are named where `data_dir` is joined with their name, by a text or a constant of that module."""
    found = {FILE_NAME}
    for path, tree in sources("data_dir /"):
        constants = dict(re.findall(r'^([A-Z_]+)(?:: Final)? = "([^"]+)"$', (ROOT / path).read_text(), re.MULTILINE))
        for node in ast.walk(tree):
            match node:
                case ast.BinOp(left=ast.Attribute(attr="data_dir"), op=ast.Div(), right=ast.Constant(value=str(name))):
                    found.add(name)
                case ast.BinOp(left=ast.Attribute(attr="data_dir"), op=ast.Div(), right=ast.Name(id=name)):
                    found.add(constants.get(name, name))
                case _:
                    pass
    assert found == set(FILES)


def test_page_names_everything_that_is_held() -> None:
    for name in (*TABLES, *FILES, *QUEUE_TABLES):
        assert f"`{name}`" in PAGE, f"docs/privacy.md does not name {name}"
    for family in KEYS:
        assert f"`{family.pattern}`" in PAGE, f"docs/privacy.md does not name {family.pattern}"
