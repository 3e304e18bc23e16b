"""An MCP server without an SDK: `python raw_mcp_server.py FILE [LISTING]`. It starts fast, and misbehaves on request.

A tool is named by what it does; `LISTING` "strange" lists tools that no model can be offered, "endless" pages for ever.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

JsonObject = dict[str, Any]
HUGE = 200 * 2**20
OBJECT = {"type": "object"}
WORDS = {"type": "object", "properties": {"line": {"type": "string"}}}
SLOW = {"type": "object", "properties": {"text": {"type": "string", "pattern": "^(a+)+$"}}, "required": ["text"]}


def _chain(length: int) -> JsonObject:
    """A schema of definitions that each name the next one twice."""
    definitions = {
        f"d{n}": {"type": "object", "properties": {key: {"$ref": f"#/$defs/d{n + 1}"} for key in "ab"}}
        for n in range(length)
    }
    return {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": {**definitions, f"d{length}": {}}}


def _deep(levels: int) -> JsonObject:
    schema: JsonObject = {}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


USUAL: list[JsonObject] = [
    {"name": "append_line", "inputSchema": WORDS},
    *(
        {"name": name, "inputSchema": OBJECT, "annotations": {"readOnlyHint": True}}
        for name in ("huge", "flood", "silent", "hang_up", "nonsense", "resource")
    ),
    {"name": "slow_check", "inputSchema": OBJECT, "outputSchema": SLOW, "annotations": {"readOnlyHint": True}},
]
STRANGE: list[JsonObject] = [
    {"name": "fine", "inputSchema": WORDS},
    {"name": "mixed_types", "inputSchema": {"type": "object", "properties": {"a": {"type": ["string", 7]}}}},
    {"name": "missing_definition", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}}},
    {"name": "elsewhere", "inputSchema": {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/a"}}}},
    {"name": "doubling", "inputSchema": _chain(24)},
    {"name": "chain", "inputSchema": _chain(80)},
    {"name": "deep", "inputSchema": _deep(60)},
    {"name": "long", "inputSchema": {"type": "object", "description": "x" * 9_000}},
    {"name": "two\nlines", "inputSchema": OBJECT},
]


def reply(message: JsonObject, file: Path, listing: str) -> JsonObject | None:
    """Return the answer to a message, without its id; None where none is due."""
    match message.get("method"):
        case "initialize":
            info = {"name": "raw", "version": "1"}
            return {"result": {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": info}}
        case "tools/list" if listing == "endless":
            number = int((message.get("params") or {}).get("cursor") or 0)
            return {"result": {"tools": [{"name": f"t{number}", "inputSchema": OBJECT}], "nextCursor": str(number + 1)}}
        case "tools/list":
            return {"result": {"tools": STRANGE if listing == "strange" else USUAL}}
        case "tools/call":
            return _call(message["params"], file)
        case _ if "id" not in message:
            return None
        case _:
            return {"error": {"code": -32601, "message": "no such method"}}


def _call(params: JsonObject, file: Path) -> JsonObject | None:
    match params["name"]:
        case "append_line":
            with file.open("a") as lines:
                lines.write(f"{params['arguments']['line']}\n")
            return _text(f"appended {params['arguments']['line']}")
        case "silent":
            return None
        case "nonsense":
            return {"result": {"content": [{"type": 7}]}}
        case "resource":
            content = {"uri": "file:///a", "text": "the words of a resource"}
            return {"result": {"content": [{"type": "resource", "resource": content}]}}
        case "slow_check":
            return {"result": {**_text("checked")["result"], "structuredContent": {"text": "a" * 40 + "!"}}}
        case name:
            return _text(name)


def _text(text: str) -> JsonObject:
    return {"result": {"content": [{"type": "text", "text": text}]}}


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main() -> None:
    """Serve standard input."""
    file, listing = Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""
    _write("a word on standard output\n")
    for line in sys.stdin:
        message = json.loads(line)
        match (message.get("params") or {}).get("name"):
            case "huge":
                for sent in range(0, HUGE, 2**16):
                    _write("x" * 2**16)
                    file.write_text(str(sent + 2**16))
            case "flood":
                note = json.dumps({"jsonrpc": "2.0", "method": "notifications/message",
                                   "params": {"level": "info", "data": "x" * 1000}})  # fmt: skip
                for sent in range(1, 100_000):
                    _write(f"{note}\n")
                    file.write_text(str(sent))
            case "hang_up":
                return
            case _:
                if (answer := reply(message, file, listing)) is not None:
                    _write(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}) + "\n")
    # Another program would end here; this one has to be told.
    if listing == "stubborn":
        time.sleep(60)


if __name__ == "__main__":
    main()
