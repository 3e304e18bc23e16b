"""SQLAlchemy database: SQLite file or PostgreSQL, tables, migrations."""
