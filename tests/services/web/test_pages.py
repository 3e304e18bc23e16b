"""PageReader and SearxSearch over HTTP on loopback: forbidden addresses, bounds, and odd servers."""

import socket
from typing import Any

import pydantic_ai._ssrf  # noqa: F401 - loaded before a test with a short limit, within which a busy machine imports nothing
import pytest
from structlog.testing import capture_logs

from services.files.sandbox import Sandbox
from services.web import PageReader, SearxSearch, WebLimits
from tests.support.web_pages import WebServer

pytestmark = pytest.mark.integration

REFUSED = "This address cannot be fetched: only public pages over http and https can."
SMALL = WebLimits(total_s=30, page_bytes=200_000, characters=1000)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/page",
        "http://localhost:{port}/page",
        "http://2130706433:{port}/page",  # the same as a number
        "http://0x7f.1:{port}/page",
        "http://0177.0.0.1:{port}/page",
        "http://[::1]:{port}/page",
        "http://[::ffff:127.0.0.1]:{port}/page",
        "http://[64:ff9b::7f00:1]/page",
        "http://169.254.169.254/latest/meta-data",
        "http://[fd00:ec2::254]/latest/meta-data",
        "http://168.63.129.16/",  # public by its number, Azure's metadata
        "http://10.0.0.1/",
        "http://user:password@192.168.0.1/",
        "http://100.64.0.1/",
        "http://0.0.0.0:{port}/page",
        "http://127.0.0.1.:{port}/page",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1/",
        "//127.0.0.1/",
        "",
    ],
)
async def test_read_refuses_private_addresses_without_a_request(server: WebServer, url: str) -> None:
    with capture_logs() as logs:
        answer = await PageReader(Sandbox()).read(url.format(port=server.url.rpartition(":")[2]))
    assert set(answer) == {"error"}
    assert answer["error"] in {REFUSED, "The server could not be reached."}
    assert server.requests == []
    assert "127.0.0.1" not in repr(logs)


async def test_read_dials_the_address_that_was_checked(server: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address first and to a private one later reaches nothing private."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    real, port = socket.getaddrinfo, int(server.url.rpartition(":")[2])

    def resolve(host: Any, *arguments: Any, **more: Any) -> Any:
        if host != "rebind.test":
            return real(host, *arguments, **more)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    answer = await PageReader(Sandbox(), WebLimits(total_s=0.3)).read(f"http://rebind.test:{port}/page")
    assert "error" in answer
    assert server.requests == []
    # The next look-up gives the private address, which is refused.
    assert await PageReader(Sandbox()).read(f"http://rebind.test:{port}/page") == {"error": REFUSED}


async def test_read_returns_title_and_text(server: WebServer) -> None:
    reader = PageReader(Sandbox(), allow_private=True)
    answer = await reader.read(f"{server.url}/hop")
    assert answer["title"] == "Tides of the sea"
    assert answer["content"] == f"# Tides\nHome\nThe moon [pulls]({server.url}/long)."
    assert "alert" not in answer["content"]
    assert server.requests == ["/hop", "/page"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/inwards", REFUSED),  # a redirect to an address that is never allowed
        ("/loop", REFUSED),
        ("/large", "The page is too large."),
        ("/bomb", "The page is too large."),
        ("/picture", "This is a file of a kind that cannot be read, not a page of text."),
        ("/missing", "The server answered with HTTP 404."),
    ],
)
async def test_read_says_why_a_page_cannot_be_read(server: WebServer, path: str, reason: str) -> None:
    assert await PageReader(Sandbox(), SMALL, allow_private=True).read(server.url + path) == {"error": reason}


async def test_read_is_bounded_in_time(server: WebServer) -> None:
    """Also while bytes go on arriving."""
    answer = await PageReader(Sandbox(), WebLimits(total_s=0.3), allow_private=True).read(f"{server.url}/slow")
    assert answer == {"error": "The page did not answer within 0.3 s."}


@pytest.mark.parametrize("path", ["/deep", "/charset", "/costly"])
async def test_read_survives_hostile_pages(server: WebServer, path: str) -> None:
    answer = await PageReader(Sandbox(), allow_private=True).read(server.url + path)
    assert answer.keys() <= {"error", "url", "title", "content"}


async def test_read_cuts_a_long_text(server: WebServer) -> None:
    answer = await PageReader(Sandbox(), SMALL, allow_private=True).read(f"{server.url}/long")
    assert len(answer["content"]) < 1100
    assert answer["content"].endswith("[The page goes on; this is its beginning.]")


async def test_search_returns_bounded_results(server: WebServer) -> None:
    server.results = {
        "results": [
            {"url": "https://a.test/1", "title": "One\nline", "content": "x" * 1000},
            {"url": "javascript:alert(1)", "title": "Bad", "content": ""},
            {"url": "https://a.test/" + "x" * 500, "title": "Long", "content": ""},
            {"title": "No address"},
            "no object",
            {"url": "https://a.test/2", "title": None, "content": 7},
            *({"url": f"https://b.test/{n}", "title": "t", "content": "c"} for n in range(20)),
        ]
    }
    search = SearxSearch(server.url + "/")
    found = await search.search("tides & moon")
    await search.aclose()
    assert found is not None
    assert len(found) == 8
    assert found[0] == {"url": "https://a.test/1", "title": "One line", "excerpt": "x" * 500}
    assert found[1] == {"url": "https://a.test/2", "title": "", "excerpt": ""}
    assert server.requests == ["/search?q=tides+%26+moon&format=json"]


@pytest.mark.parametrize(
    ("status", "results"),
    [(403, {}), (500, {}), (200, "<html>"), (200, "[" * 100_000), (200, '"' + "x" * 1_100_000 + '"')],
    ids=["no json", "down", "html", "deep", "long"],
)
async def test_search_reports_a_broken_server(server: WebServer, status: int, results: object) -> None:
    server.status, server.results = status, results
    search = SearxSearch(server.url)
    with capture_logs() as logs:
        assert await search.search("tides") is None
    await search.aclose()
    assert [entry["event"] for entry in logs] == ["web.search_failed"]
    assert "tides" not in repr(logs)


@pytest.mark.parametrize("results", [[], {}, {"results": None}, {"results": {}}])
async def test_search_of_another_shape_finds_nothing(server: WebServer, results: object) -> None:
    server.results = results
    search = SearxSearch(server.url)
    assert await search.search("tides") == []
    await search.aclose()
