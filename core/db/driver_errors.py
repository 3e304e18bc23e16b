"""Errors of the database drivers, as a StorageError with a few words."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from core.errors import StorageError

LOCKED = "it is locked by another process"
READ_ONLY = "it is read-only"
FULL = "its disk is full"
UNREACHABLE = "it is unreachable"
DAMAGED = "the file is damaged or no database"
BUSY = "no connection came free in time"
CANNOT_OPEN = "the file cannot be opened"
DISK_FAULT = "the disk reported a fault"
LOGIN_REFUSED = "it refuses the login"
NO_SUCH_DATABASE = "the server has no such database"
FORBIDDEN = "its user may not do this"
REFUSED = "it refused the statement"

# Primary result codes, https://www.sqlite.org/rescode.html
_SQLITE = {
    sqlite3.SQLITE_BUSY: LOCKED,
    sqlite3.SQLITE_LOCKED: LOCKED,
    sqlite3.SQLITE_READONLY: READ_ONLY,
    sqlite3.SQLITE_FULL: FULL,
    sqlite3.SQLITE_CANTOPEN: CANNOT_OPEN,
    sqlite3.SQLITE_PERM: CANNOT_OPEN,
    sqlite3.SQLITE_IOERR: DISK_FAULT,
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}

# SQLSTATE codes, then their classes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRES = {
    "55P03": LOCKED,
    "40P01": LOCKED,
    "25006": READ_ONLY,
    "53100": FULL,
    "42501": FORBIDDEN,
    "3D000": NO_SUCH_DATABASE,
    "53": BUSY,
    "57": UNREACHABLE,
    "08": UNREACHABLE,
    "28": LOGIN_REFUSED,
}

# A failed connect has no SQLSTATE, only the server's message; a localised message counts as unreachable.
_POSTGRES_CONNECT = {
    "password authentication failed": LOGIN_REFUSED,
    "no password supplied": LOGIN_REFUSED,
    "no pg_hba.conf entry": LOGIN_REFUSED,
    "does not exist": NO_SUCH_DATABASE,
    "too many clients": BUSY,
    "remaining connection slots": BUSY,
}


def describe_storage_error(error: BaseException) -> str:
    """Returns a short description of an error of SQLAlchemy or of the driver below it."""
    if isinstance(error, PoolTimeoutError):
        return BUSY
    fault = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(fault, sqlite3.Error):
        # Errors raised by the driver itself (a value out of range) carry no SQLite code.
        code = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return _SQLITE.get(code & 0xFF, REFUSED)
    state = getattr(fault, "sqlstate", None)
    if isinstance(state, str):
        return _POSTGRES.get(state) or _POSTGRES.get(state[:2]) or REFUSED
    if type(fault).__name__ in {"OperationalError", "InterfaceError", "ConnectionTimeout"}:
        message = str(fault).lower()
        return next((reason for words, reason in _POSTGRES_CONNECT.items() if words in message), UNREACHABLE)
    return REFUSED


DRIVER_ERRORS = (DBAPIError, PoolTimeoutError, sqlite3.Error)
"""Errors of the engine and of the driver; misuse of SQLAlchemy raises others."""


def to_storage_error(error: Exception) -> StorageError:
    """Returns the error to raise in place of one of `DRIVER_ERRORS`, which is its cause.

    Integrity and data errors are permanent: the referenced row is gone or the value fits no column, so a retry of the
    same statement fails again.
    """
    permanent = isinstance(error, IntegrityError | DataError)
    translated = StorageError(f"the database failed: {describe_storage_error(error)}", permanent=permanent)
    translated.__cause__ = error
    return translated


@contextmanager
def translate_errors() -> Generator[None]:
    """Translates engine and driver errors to StorageError; misuse of SQLAlchemy passes unchanged."""
    try:
        yield
    except DRIVER_ERRORS as error:
        raise to_storage_error(error) from error
