"""`python -m bot.web.healthcheck`: is the bot of this container well? For Docker, without curl.

It imports nothing beside the standard library, since it runs every half a minute.
"""

import http.client
import os
import sys
from collections.abc import Mapping
from contextlib import closing

PATIENCE_S = 5.0
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not listened on, but asked
"""Where a server that listens everywhere is found from its own machine."""


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Ask `/healthz`; 0 where it answers, or where there is no web side to ask."""
    port = environ.get("WEB_PORT", "").strip()
    if not port:
        sys.stdout.write("WEB_PORT is not set: the process runs, and there is nobody to ask how it is\n")
        return 0
    host = environ.get("WEB_HOST", "").strip() or "127.0.0.1"
    try:
        with closing(http.client.HTTPConnection(ANY_ADDRESS.get(host, host), int(port), timeout=PATIENCE_S)) as server:
            server.request("GET", "/healthz")
            status = server.getresponse().status
    except (OSError, ValueError, http.client.HTTPException) as error:
        sys.stdout.write(f"/healthz does not answer: {type(error).__name__}\n")
        return 1
    sys.stdout.write(f"/healthz answers {status}\n")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
