"""What alembic runs: migrates over the connection, and in the transaction, that `core.db.database` hands in."""

from alembic import context
from sqlalchemy import Connection

from core.db.tables import Base

connection = context.config.attributes["connection"]
if not isinstance(connection, Connection):
    raise TypeError("migrations run from core.database, which hands in its connection")
# SQLite alters most things by copying the table; alembic does so in batch mode.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
