"""Fence of a replaced replica: its database connections end, and it opens no new ones.

The replica that takes over marks the other's row as replaced and then ends its connections, which rolls back their
open transactions. A connection that the replaced one opens afterwards finds no valid row and is refused. So nothing of
it is committed after the takeover, even if it wakes without knowing.
"""

import os
import socket
from contextlib import suppress
from typing import Any, Protocol, cast
from weakref import WeakSet

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from core.db.drivers import closed_on_failure

IS_REGISTERED = "SELECT 1 FROM replicas WHERE name = %s AND expires_at > '-infinity'"


class _LibpqConnection(Protocol):
    """A connection of libpq, whose types are private to psycopg."""

    @property
    def socket(self) -> int: ...


class _DriverConnection(Protocol):
    """A connection of psycopg, synchronous or not."""

    @property
    def pgconn(self) -> _LibpqConnection: ...


class ReplicaFence:
    """Names the connections of PostgreSQL engines after a replica, and refuses new ones once it was replaced.

    Args:
        name: name of this replica: the `application_name` of its connections.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_registered = False
        """True once the replica's row exists, so that its absence means that it was replaced."""
        self._connections: WeakSet[_DriverConnection] = WeakSet()

    def attach(self, engine: sa.Engine) -> None:
        """Applies the fence to an engine."""
        event.listen(engine, "do_connect", self._set_name)
        event.listen(engine, "connect", self._admit)

    def abort(self) -> int:
        """Shuts the sockets of all connections, so that threads and tasks blocked on them fail; returns how many."""
        count = 0
        for connection in list(self._connections):
            with suppress(psycopg.Error, OSError, ValueError):
                with socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy:
                    copy.shutdown(socket.SHUT_RDWR)
                count += 1
        return count

    def _set_name(self, _dialect: sa.Dialect, _entry: object, _arguments: object, options: dict[str, Any]) -> None:
        options["application_name"] = self.name

    def _admit(self, connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
        driver = cast("_DriverConnection", entry.driver_connection)
        self._connections.add(driver)
        if not self.is_registered:
            return
        with closed_on_failure(connection):
            cursor = connection.cursor()
            cursor.execute(IS_REGISTERED, (self.name,))
            is_registered = cursor.fetchone() is not None
            cursor.close()
            connection.commit()
            if not is_registered:
                raise psycopg.OperationalError("another replica has replaced this one")
