"""Addresses of LLM servers that cannot be reached."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

NO_SUCH_HOST_URL = "http://llm.understudy.invalid/v1"
"""An address whose host name does not resolve: `.invalid` is reserved for that (RFC 2606)."""


@contextlib.contextmanager
def refusing_url() -> Iterator[str]:
    """A base URL on a port that refuses connections: bound, so that no other process can listen on it."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{holder.getsockname()[1]}/v1"


@contextlib.asynccontextmanager
async def black_hole_url() -> AsyncIterator[str]:
    """A base URL where connecting hangs: a listener whose queue is full, so that the kernel drops new connections."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(loop.sock_connect(filler, address), 0.05)
        yield f"http://127.0.0.1:{address[1]}/v1"
