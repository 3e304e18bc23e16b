"""The databases, for the tests below this folder."""

from tests.support.databases import database, database_url, postgres, postgres_url, replica

__all__ = ["database", "database_url", "postgres", "postgres_url", "replica"]
