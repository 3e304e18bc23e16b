"""Checks whether the server can bind its address, and words the reason if it cannot."""

import errno
import http.client
import os
import socket
from contextlib import closing

from bot.web.healthcheck import LOOPBACK

PROBE_TIMEOUT_S = 2.0


def find_bind_fault(host: str, port: int) -> str | None:
    """Returns why an address cannot be listened on; None if it can."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As asyncio's servers do: connections of a process that has ended do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            # Another process that listens is noticed here on some systems.
            probe.listen(1)
    except (OSError, OverflowError) as error:
        return describe_bind_error(error, host, port)
    return None


def is_own_server(host: str, port: int) -> bool:
    """Returns whether this program answers at an address, as its health check does."""
    try:
        with closing(http.client.HTTPConnection(LOOPBACK.get(host, host), port, timeout=PROBE_TIMEOUT_S)) as server:
            server.request("GET", "/healthz")
            response = server.getresponse()
            return response.status == http.client.OK and b'"alive"' in response.read(1000)
    except (OSError, ValueError, http.client.HTTPException):
        return False


def describe_bind_error(error: OSError | OverflowError, host: str, port: int) -> str:
    """Returns the line that reports an address which cannot be listened on."""
    number = error.errno if isinstance(error, OSError) else None
    if number is not None and number in errno.errorcode:
        reason = os.strerror(number)  # asyncio repeats the address in its message
    else:
        reason = getattr(error, "strerror", None) or str(error)
    match number:
        case errno.EADDRINUSE:
            return f"WEB_PORT: port {port} of {host} is in use by another process, for example WEB_PORT={port + 1}"
        case errno.EACCES:
            return f"WEB_PORT: port {port} of {host} may not be used ({reason}), for example WEB_PORT=8080"
        case _:
            fault = f"{host} cannot be listened on with WEB_PORT={port} ({reason})"
            return f"WEB_HOST: {fault}, for example WEB_HOST=127.0.0.1"
