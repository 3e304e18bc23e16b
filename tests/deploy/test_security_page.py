"""The figures and names in docs/security.md against the code."""

import re
from pathlib import Path

import pytest

from bot.telegram.api.files import (
    LONGEST_SOUND_S,
    MAX_ALBUM_BYTES,
    MAX_DOCUMENT_BYTES,
    MAX_DOCUMENT_CHARACTERS,
    MAX_IMAGE_BYTES,
    MAX_SOUND_BYTES,
    MAX_TEXT_FILE_BYTES,
)
from bot.telegram.ingress.ingest import AdmissionLimits
from bot.telegram.markdown.render import RenderLimits
from bot.web.server import BODY_LIMIT, WebTiming
from core.bounded_json import MAX_DEPTH
from core.config.settings import Settings, load_settings
from services.inbox.dbos_queue import MAX_WAITING
from services.limits.party_limits import TurnLimits
from services.llm.models.stream_reader import MAX_TEXT
from services.llm.providers.wire.event_lines import MAX_EVENT_BYTES
from services.llm.providers.wire.transport import FREE_STREAM_BYTES, MAX_BODY_BYTES, MAX_ERROR_BYTES, STREAM_BYTES_PER_S

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text(encoding="utf-8")
KIB, MIB = 1024, 1024 * 1024


def bound(name: str) -> str:
    (found,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", TEXT, re.MULTILINE)
    return found


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        (
            "messages and commands of a person in a minute, over all chats",
            f"{load_settings(None, {}).limit_messages_per_minute} (`LIMIT_MESSAGES_PER_MINUTE`)",
        ),
        ("messages of a group to the bot in a minute", f"{AdmissionLimits().group_factor} times as many"),
        ("button presses of a person in a minute", f"{AdmissionLimits().press_factor} times as many"),
        (
            "running answers of a person",
            f"{load_settings(None, {}).limit_running_per_user} (`LIMIT_RUNNING_PER_USER`), the rest waits",
        ),
        ("messages waiting in one conversation", f"{MAX_WAITING}"),
        ("turns at once in a process", f"{TurnLimits().most:,}, fewer while the event loop is late"),
        ("Markdown of one page of an answer", f"{RenderLimits().source:,} characters"),
        ("an answer of a provider: text", f"{MAX_TEXT // KIB} Ki characters"),
        ("an answer of a provider: bytes after decompression", f"{MAX_BODY_BYTES // MIB} MiB"),
        ("an error body of a provider", f"{MAX_ERROR_BYTES // KIB} KiB"),
        ("an event of a stream", f"{MAX_EVENT_BYTES // MIB} MiB"),
        (
            "a stream of a provider, read at any pace",
            f"{FREE_STREAM_BYTES // KIB} KiB, and {STREAM_BYTES_PER_S // KIB} KiB more each second",
        ),
        ("a picture; the pictures of an album", f"{MAX_IMAGE_BYTES // MIB} MiB; {MAX_ALBUM_BYTES // MIB} MiB"),
        ("a text file", f"{MAX_TEXT_FILE_BYTES // KIB} KiB"),
        ("a recording", f"{MAX_SOUND_BYTES // MIB} MiB, {LONGEST_SOUND_S // 60} minutes"),
        ("a document; its text", f"{MAX_DOCUMENT_BYTES // MIB} MiB; {MAX_DOCUMENT_CHARACTERS:,} characters"),
        ("body of an HTTP request", f"{BODY_LIMIT // MIB} MiB"),
        ("nesting of JSON from outside", f"{MAX_DEPTH} levels"),
    ],
)
def test_a_bound_is_that_of_the_code(name: str, figure: str) -> None:
    assert bound(name) == figure


def test_the_deadlines_of_the_web_server_are_those_of_the_code() -> None:
    timing = WebTiming()
    assert {timing.head_s, timing.body_s, timing.response_s} == {20.0}
    assert bound("head of a request; its body; reading a response") == "20 s each"


def test_the_page_is_linked_and_names_settings_that_exist() -> None:
    for page in ("README.md", "SECURITY.md"):
        assert "(docs/security.md)" in (ROOT / page).read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Z]+_[A-Z_]+)(?:=\w+)?`", TEXT))
    assert len(named) > 5
    assert named <= {name.upper() for name in Settings.model_fields}
