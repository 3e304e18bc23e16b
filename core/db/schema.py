"""Schema of the database: all tables, and their migration."""

from sqlalchemy import Connection, inspect, text

from core.db import job_tables, moderation_tables, operator_tables, tables, usage_tables
from core.db.migrations import HEAD
from core.errors import StartupError

TABLE_MODULES = (job_tables, moderation_tables, operator_tables, tables, usage_tables)
"""Each registers its tables in the schema."""
NEWER = "the database belongs to another, probably newer, version of Understudy"
_MIGRATION_LOCK = 0x756E6465727374  # arbitrary constant: "underst"
_MIGRATION_LOCK_TIMEOUT = "10min"  # longest wait for the migration of another replica


def migrate(connection: Connection) -> None:
    """Migrates the schema to HEAD in the connection's transaction."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL lock_timeout = '{_MIGRATION_LOCK_TIMEOUT}'"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    if read_revision(connection) == HEAD:
        # Beginning a transaction does not reveal a read-only file or standby server; a write does.
        connection.execute(text("UPDATE alembic_version SET version_num = version_num"))
        return
    # Imported here: 0.3 s that only a migration needs.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", "core.db:migrations")
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StartupError(NEWER) from error


def has_tables(connection: Connection) -> bool:
    """Returns whether the database has any table."""
    return bool(inspect(connection).get_table_names())


def read_revision(connection: Connection) -> str | None:
    """Returns the revision of the schema; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
