"""Alembic environment: migrates over the connection, and in the transaction, passed by `core.db.schema`."""

from alembic import context
from sqlalchemy import Connection

from core.db.tables import Base

connection = context.config.attributes["connection"]
if not isinstance(connection, Connection):
    raise TypeError("migrations are run by core.db.schema, which passes its connection")
# SQLite alters most things by copying the table, as batch mode does.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
context.run_migrations()
