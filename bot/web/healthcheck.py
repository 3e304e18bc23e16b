"""Container health check without curl: `python -m bot.web.healthcheck`.

It imports only the standard library, since it runs every half a minute.
"""

import http.client
import os
import sys
from collections.abc import Mapping
from contextlib import closing

TIMEOUT_S = 5.0
LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here
"""The loopback address of a server that listens on every address."""


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Requests `/healthz`; returns 0 if it answers or the web server is off, else 1."""
    port = environ.get("WEB_PORT", "").strip()
    if not port:
        sys.stdout.write("WEB_PORT is not set: the process runs, and its health cannot be checked\n")
        return 0
    host = environ.get("WEB_HOST", "").strip() or "127.0.0.1"
    try:
        with closing(http.client.HTTPConnection(LOOPBACK.get(host, host), int(port), timeout=TIMEOUT_S)) as server:
            server.request("GET", "/healthz")
            status = server.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stdout.write(f"/healthz does not answer: {type(error).__name__}\n")
        return 1
    sys.stdout.write(f"/healthz answers {status}\n")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
