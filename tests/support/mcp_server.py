"""An MCP server of the SDK: `python -m tests.support.mcp_server FILE [FD]`, over stdio or a listening socket."""

import os
import sys
from pathlib import Path

import uvicorn
from mcp.server import MCPServer
from mcp.types import ToolAnnotations

READ_ONLY = ToolAnnotations(read_only_hint=True)
FILE = Path(sys.argv[1])
server = MCPServer("notes")


@server.tool(annotations=READ_ONLY)
def read_lines() -> str:
    """Read the lines."""
    return FILE.read_text() if FILE.exists() else ""


@server.tool()
def append_line(line: str) -> str:
    """Append a line."""
    with FILE.open("a") as file:
        file.write(f"{line}\n")
    return f"appended {line}"


@server.tool(annotations=READ_ONLY)
def variables() -> str:
    """Name the variables of the environment."""
    return " ".join(sorted(os.environ))


@server.tool(annotations=READ_ONLY)
def long_text() -> str:
    """Answer with more than a model can read."""
    return "x" * 200_000


@server.tool(annotations=READ_ONLY)
def fail() -> str:
    """Fail."""
    raise ValueError("no such page")


@server.tool(annotations=READ_ONLY)
def die() -> str:
    """End the process in the middle of the call."""
    os._exit(1)


if __name__ == "__main__":
    print("a word on standard error", file=sys.stderr)
    if len(sys.argv) > 2:
        config = uvicorn.Config(server.streamable_http_app(), fd=int(sys.argv[2]), log_level="critical")
        uvicorn.Server(config).run()
    else:
        # As some servers do, although the protocol forbids it.
        print("a word on standard output", flush=True)
        server.run("stdio")
