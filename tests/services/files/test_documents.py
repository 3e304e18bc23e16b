"""Documents of other programs are read, and none of those that are made to harm gets further than its child."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from services.files.sandbox import DOCUMENT_LIMITS, FileRefused, Refusal, Sandbox, Task
from tests.support import documents as made

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
COPIES = 200
NOISE = b"\x89PNG\r\n" + bytes(range(256)) * 4


async def read(data: bytes, kind: str, most: int = 1_000_000) -> tuple[str, bool]:
    result = await Sandbox().run(Task.DOCUMENT, data, DOCUMENT_LIMITS, {"kind": kind, "most": most})
    return result.body.decode(), result.facts["is_cut"]


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (made.pdf("First page", "Second page"), "pdf", "First page\n\nSecond page"),
        (made.word("A *paragraph*."), "docx", "# A heading\n\nA *paragraph*.\n\nleft\tright"),
        (made.sheet(("what", "cost"), ("tea", 3), ("milk", 2.5)), "sheet", "## Costs\nwhat\tcost\ntea\t3\nmilk\t2.5"),
        (made.slides("One", "Two"), "pptx", "## 1\nOne\n\n## 2\nTwo"),
        (made.PAGE.encode(), "html", "# Fish & chips\n\nAB"),
        ("<meta charset=windows-1251><p>Привет".encode("cp1251"), "html", "Привет"),
        # The declaration itself is in no such encoding.
        ("<meta charset=utf-16><p>Привет".encode(), "html", "Привет"),
        ("<meta charset=undefined><p>Привет!".encode(), "html", "Привет!"),
        # A name that promises another kind that can be read, too.
        (made.pdf("First page"), "docx", "First page"),
    ],
    ids=[
        "pdf",
        "docx",
        "xlsx",
        "pptx",
        "html",
        "html in cp1251",
        "html in no UTF-16",
        "html in no encoding",
        "pdf named docx",
    ],
)
async def test_text_of_each_kind_is_read(data: bytes, kind: str, text: str) -> None:
    assert await read(data, kind) == (text, False)


@pytest.mark.parametrize(
    ("data", "kind", "why"),
    [
        (made.pdf("x", password="secret"), "pdf", Refusal.ENCRYPTED),
        (made.locked_office(), "docx", Refusal.ENCRYPTED),
        (made.pdf("x")[:300], "pdf", Refusal.BROKEN),
        (made.word("x")[:2000], "docx", Refusal.BROKEN),
        (b"", "pdf", Refusal.EMPTY),
        (made.pdf(""), "pdf", Refusal.EMPTY),
        (made.sheet(), "sheet", Refusal.EMPTY),
        (NOISE, "pdf", Refusal.MISLABELLED),
        (NOISE, "html", Refusal.MISLABELLED),
        (made.archive({"a.txt": b"x"}), "docx", Refusal.MISLABELLED),
        (made.sheet((1,), far_cell=True), "sheet", Refusal.TOO_MUCH),
        (made.archive({f"word/{n}": b"" for n in range(10_001)}), "docx", Refusal.TOO_MUCH),
        (made.entities(), "pptx", Refusal.BROKEN),
    ],
    ids=[
        "pdf with a password", "office with a password", "half a pdf", "half a docx", "no bytes", "blank page",
        "blank sheet", "picture as pdf", "picture as html", "archive as docx", "two far cells", "many members",
        "entities",
    ],
)  # fmt: skip
async def test_what_cannot_be_read_has_its_reason(data: bytes, kind: str, why: Refusal) -> None:
    with pytest.raises(FileRefused) as caught:
        await read(data, kind)
    assert caught.value.why is why


async def test_a_bomb_is_refused_by_its_directory() -> None:
    data = made.bomb()
    assert len(data) < 1 << 20
    with pytest.raises(FileRefused) as caught:
        await read(data, "docx")
    assert caught.value.why is Refusal.TOO_MUCH


async def test_a_long_document_is_read_as_far_as_allowed() -> None:
    text, is_cut = await read(made.sheet(*[("word " * 20,)] * 500), "sheet", most=10_000)
    assert is_cut
    assert 9_900 < len(text) <= 10_000


FUZZ = """
import json, os, random, sys
from services.files import child, documents
from tests.support import documents as made
import mammoth, pypdfium2, python_calamine, xml.dom.expatbuilder

samples = [
    ("pdf", made.pdf("First page", "Second page")), ("docx", made.word("A paragraph")),
    ("sheet", made.sheet(("tea", 3), ("milk", 2.5))), ("pptx", made.slides("One", "Two")),
    ("html", made.PAGE.encode()),
]
chance, ends = random.Random(7), []
for number in range(int(sys.argv[1])):
    kind, data = samples[number % len(samples)]
    copy = bytearray(data)
    for _ in range(chance.choice((1, 5, 50))):
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    if number % 3 == 0:
        del copy[chance.randrange(len(copy)):]
    reading, writing = os.pipe()
    if (process := os.fork()) == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        child.confine(768 << 20, 5, 10)
        facts, text = child.answer("document", bytes(copy), {"kind": kind, "most": 1_000_000})
        os.write(writing, json.dumps([facts, len(text)]).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    _, status = os.waitpid(process, 0)
    ends.append([os.waitstatus_to_exitcode(status), json.loads(said) if said else None])
print(json.dumps(ends))
"""


def test_damaged_copies_end_in_their_children(tmp_path: Path) -> None:
    """Each copy gives a text or a reason, or ends its child; none leaves a file behind or a process hanging."""
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(COPIES)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        check=True,
        timeout=55,
    )
    ends = json.loads(done.stdout)
    assert len(ends) == COPIES
    spoken = [said for code, said in ends if code == 0]
    assert len(spoken) > COPIES * 0.9
    reasons = {facts["why"] for facts, _ in spoken if "why" in facts}
    assert reasons <= {each.value for each in Refusal}
    assert any(length for _, length in spoken)
    assert not list(tmp_path.iterdir())
