"""What a driver's error means, in the few words that an operator reads."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
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

# Codes, then classes of codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
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

# A failed connect has no code, only the server's sentence; in another language it counts as unreachable.
_POSTGRES_CONNECT = {
    "password authentication failed": LOGIN_REFUSED,
    "no password supplied": LOGIN_REFUSED,
    "no pg_hba.conf entry": LOGIN_REFUSED,
    "does not exist": NO_SUCH_DATABASE,
    "too many clients": BUSY,
    "remaining connection slots": BUSY,
}


def describe_storage_error(error: BaseException) -> str:
    """The few words for an error of SQLAlchemy or of a driver under it."""
    if isinstance(error, PoolTimeoutError):
        return BUSY
    fault = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(fault, sqlite3.Error):
        # The driver's own complaints (a value that does not fit) carry no code of SQLite.
        code = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return _SQLITE.get(code & 0xFF, REFUSED)
    state = getattr(fault, "sqlstate", None)
    if isinstance(state, str):
        return _POSTGRES.get(state) or _POSTGRES.get(state[:2]) or REFUSED
    if type(fault).__name__ in {"OperationalError", "InterfaceError", "ConnectionTimeout"}:
        said = str(fault).lower()
        return next((reason for words, reason in _POSTGRES_CONNECT.items() if words in said), UNREACHABLE)
    return REFUSED


@contextmanager
def translate_errors() -> Generator[None]:
    """Turn what the engine and the drivers raise into StorageError; misuse of SQLAlchemy stays what it is."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError, sqlite3.Error) as error:
        raise StorageError(f"the database failed: {describe_storage_error(error)}") from error
