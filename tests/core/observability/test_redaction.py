"""Redaction: secrets of the configuration in every spelling, forms of keys, shortened keys, linear cost."""

import base64
import json
import time
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.observability.redaction import MASK, SecretMasker, mask_secret_forms

KEY = "Zq7-tangerine/harbour+Kx42"
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("Cs", "Zs")), min_size=6)
WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # Shortened by the server: xAI, OpenAI, Anthropic, DeepSeek.
        ("Incorrect API key provided: ab***yz.", f"Incorrect API key provided: {MASK}."),
        ("Incorrect API key provided: sk-proj-********************9xQA. You can", f"{MASK}. You can"),
        ("Your api key: ****4f2a is invalid", f"Your api key: {MASK} is invalid"),
        ("the token ab**yz has expired", f"the token {MASK} has expired"),
        ("Invalid key sk-...h1Tz", f"Invalid key {MASK}"),
        ("credential abcd…wxyz refused", f"credential {MASK} refused"),
        ("key ••••••wxyz", f"key {MASK}"),
        # Unknown keys, by the words around them.
        ("Incorrect API key provided: tangerine42", f"Incorrect API key provided: {MASK}"),
        ("access token used: tangerine42, sorry", f"access token used: {MASK}, sorry"),
        ("gsk_" + "a" * 40, MASK),
        ("xai-" + "a" * 40, MASK),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", MASK),
        # Addresses.
        ("GET /v1beta/models?key=tangerine42&alt=sse", f"GET /v1beta/models?key={MASK}&alt=sse"),
        ("https://tangerine-harbour-42@proxy.example/v1", f"https://{MASK}@proxy.example/v1"),
        ("postgresql://bot:p/ss@word@db:5432/x", f"postgresql://bot:{MASK}@db:5432/x"),
        ("/bot123456789%3AAAF-abcdefghijklmnopqrstuvwxyz_0123/getMe", f"/bot{MASK}/getMe"),
    ],
)
def test_secrets_in_a_servers_words_are_masked(text: str, masked: str) -> None:
    shown = mask_secret_forms(text)
    assert shown == masked or shown.endswith(masked)
    masker = SecretMasker((KEY,))
    assert masker.text(text) == shown
    assert masker.suspect.search(text.casefold())


@pytest.mark.parametrize(
    "text",
    [
        "Loading model... please wait",
        "model requires more system memory (5.6 GiB) than is available (3.1 GiB)",
        "maximum context length is 4096 tokens, you requested 5000 tokens",
        "vendor/some-model-pro is not a valid model ID",
        "**bold** words",
        "limits: 1..20",
        "https://api.example.org:8443/v1/models?limit=20",
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
    ],
)
def test_ordinary_words_of_a_server_are_kept(text: str) -> None:
    assert SecretMasker((KEY, "postgresql://understudy:a-password@db/understudy")).text(text) == text


@given(PRINTABLE, WORDS, WORDS)
@example(KEY, "", "")
@example('quo"te\\d-ключ', "{", "}")
def test_a_configured_secret_is_masked_in_every_spelling(secret: str, before: str, after: str) -> None:
    masker = SecretMasker((secret,))
    spellings = {
        secret,
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        base64.b64encode(secret.encode()).decode(),
    }
    for spelling in spellings:
        text = f"{before} {spelling} {after}"
        assert masker.suspect.search(text.casefold()) or masker.text(text) == text
        for show in (masker.known, masker.text):
            # What stands around a secret may contain it too, or become part of a mask, but never brings it back.
            assert spelling not in show(text) or spelling in MASK


@given(st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=24, max_size=80), st.data())
def test_a_part_of_a_configured_key_is_masked(key: str, data: st.DataObject) -> None:
    """Cut at any place from its twelfth character on, as by a server or by the end of an excerpt."""
    shown = key[: data.draw(st.integers(12, len(key)))]
    assert key[:12] not in SecretMasker((key,)).text(f"the value {shown} is wrong")
    assert key[-12:] not in SecretMasker((key,)).text(f"the value that ends in {key[-12:]} is wrong")


@given(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=6),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=6),
    st.sampled_from(["**", "***", "*" * 20, "•••"]),
)
def test_a_key_with_stars_is_masked(begin: str, end: str, stars: str) -> None:
    text = f"wrong: {begin}{stars}{end}, sorry"
    assert SecretMasker().text(text) == f"wrong: {MASK}, sorry"
    assert SecretMasker().suspect.search(text)


def test_an_excerpt_is_masked_before_it_is_cut() -> None:
    """A cut within a key would leave a part of it that no pattern knows."""
    masker = SecretMasker((KEY,))
    for length in range(10, 60):
        shown = masker.excerpt(f"no access with\n {KEY} at all", length)
        assert len(shown) <= length
        assert "tangerine" not in shown
        assert KEY[:4] not in shown
    assert masker.excerpt("short\n\tand  plain", 300) == "short and plain"


@pytest.mark.parametrize(
    "text",
    [
        "turn.finished",
        "telegram:-1001234567890:0",
        "2026-11-29T15:47:05.123456Z",
        "gpt-oss:120b",
        "right, enough light",
    ],
)
def test_usual_fields_of_the_log_are_not_suspect(text: str) -> None:
    """Else each of them would be searched for every form."""
    assert not SecretMasker((KEY,)).suspect.search(text.casefold())


def test_masker_without_secrets_changes_no_text() -> None:
    assert SecretMasker().known("any text") == "any text"


def test_short_values_are_no_secrets() -> None:
    assert SecretMasker(("ab", "db")).text("about the db") == "about the db"


@pytest.mark.parametrize(
    "unit",
    [
        "a", "*", ".", "…", "-", "sk-", "key ", "key: ", "://", "://a:", "postgres://:", "@", "bearer ",
        "authorization: ",
        "api key is ", "api key ", "1:", "eyJaaaaaaaaaa.", "?key=", "a..", "a**a", "password = ' ", " ", "\n",
    ],
)  # fmt: skip
def test_masking_is_linear_in_the_text(unit: str) -> None:
    """Four times the text costs far less than sixteen times the time. The best of several runs counts."""
    masker = SecretMasker((KEY,))

    def cost(length: int) -> float:
        text = (unit * length)[:length]
        best = float("inf")
        for _ in range(4):
            began = time.thread_time()
            masker.text(text)
            best = min(best, time.thread_time() - began)
        return best

    assert cost(80_000) < 9 * cost(20_000) + 0.01


def test_mask_secret_forms_takes_linear_time_for_repeated_beginnings() -> None:
    """Of 400,000 characters; quadratic work would take a minute."""
    began = time.process_time()
    for repeated in ("eyJ-", "eyJaaaaaaaaaa.", "eyJaaaaaaaaaa-"):
        mask_secret_forms(repeated * (400_000 // len(repeated)))
    assert time.process_time() - began < 2


def test_mask_secret_forms_masks_a_web_token_after_a_word_that_resembles_one() -> None:
    assert mask_secret_forms("eyJhbGciOiJIUzI1NiJ9 eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.abc") == f"eyJhbGciOiJIUzI1NiJ9 {MASK}"
