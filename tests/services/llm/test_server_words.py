"""A server's own words: found in each layout, without keys, and never with a user's prompt."""

import base64
import json
import time

import pytest
from pydantic import SecretStr
from pydantic_ai.exceptions import ModelAuthenticationError, ModelHTTPError
from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, TextPart, UserPromptPart

from services.llm.server_words import MAX_LENGTH, clean_words, find_message, find_server_words, mask_quotes

KEY = "kx-9f3ab27c51d04e68-Zz"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": {"message": "model requires more memory", "code": None}}, "model requires more memory"),  # OpenAI's
        ({"object": "error", "message": "System role not supported", "code": 400}, "System role not supported"),  # vLLM
        ({"code": "invalid-argument", "error": "Incorrect API key"}, "Incorrect API key"),  # xAI
        ({"detail": "Not Found"}, "Not Found"),  # FastAPI
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, "field required"),
        ({"detail": [{"loc": ["body", "tools", 0], "msg": "extra inputs"}]}, "tools.0: extra inputs"),
        ({"message": {"detail": [{"msg": "bad temperature"}]}}, "bad temperature"),  # Mistral
        ([{"error": {"message": "API key not valid"}}], "API key not valid"),  # Google's stream
        ({"errors": [{"message": "no such account"}]}, "no such account"),  # Cloudflare
        (
            {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error": {"message": "busy"}}'}}},
            "Provider returned error: busy",
        ),  # OpenRouter
        ({"error": {"message": '{"error": {"message": "quota"}}'}}, "quota"),  # a gateway
        ("upstream connect error", "upstream connect error"),
        (b"<html><head><title>502 Bad Gateway</title></head><body>x</body></html>", "502 Bad Gateway"),
        ("<html><style>b {}</style><body><h1>Sorry</h1></body></html>", "Sorry"),
        ("", ""),
        (None, ""),
        ({"error": None}, ""),
        ({"id": 7}, ""),
        ("[" * 100_000, "[" * 100_000),  # nested too deeply to be JSON
    ],
)
def test_find_message_reads_each_layout(body: object, message: str) -> None:
    assert find_message(body).strip() == message
    if isinstance(body, dict | list):
        assert find_message(json.dumps(body).encode()) == message


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"unauthorized: {KEY}", "unauthorized: ***"),  # whole
        (f"key '{KEY}' is wrong", "key '***' is wrong"),
        ("Incorrect API key provided: kx***Zz.", "Incorrect API key provided: ***"),  # its first and last characters
        ("Incorrect API key provided: kx-9...8-Zz", "Incorrect API key provided: ***"),
        ("key ending in …e68-Zz", "key ending in ***"),
        ("the key kx-9f3ab2 is unknown", "the key *** is unknown"),  # its beginning alone
        ("key suffix d04e68-Zz.", "key suffix ***."),
        (f"key {KEY.upper()} is unknown", "key *** is unknown"),
        (f"the key {' '.join(KEY)}.", "the key ***."),
        (f"the key {KEY[:9]}' + '{KEY[9:]}.", "the key ***."),
        (f"no {base64.b64encode(b'Basic:' + KEY.encode()).decode()}", "no ***"),
        (f"no {''.join(f'%{byte:02x}' for byte in KEY.encode())}", "no ***"),
        (f"no {''.join(f'%25{byte:02X}' for byte in KEY.encode())}", "no ***"),
        (f"no {''.join(f'&#{byte};' for byte in KEY.encode())}", "no ***"),
        (f"no {''.join(f'{chr(92)}u{byte:04x}' for byte in KEY.encode())}", "no ***"),
        (f"no {KEY.encode().hex()}", "no ***"),
        (f"no {KEY[::-1]}", "no ***"),
        ("no " + "".join(f"\\{ord(letter):03o}" for letter in KEY), "no ***"),
        ("no " + ", ".join(map(hex, KEY.encode())), "no ***"),
        (f"no {list(KEY.encode())}", "no [***]"),
        ("no kx-9f3xxxxxxxxxx8-Zz", "no ***"),
        ("Bearer abcdef123", "Bearer ***"),
        ("Invalid bearer token", "Invalid bearer token"),  # no secret in it
        ("not sk-proj-1234567890abc", "not ***"),  # another's
        ("gsk_0123456789abcdefgh", "***"),
        ("AIzaSyA-0123456789", "***"),
        ("token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.sig is expired", "token *** is expired"),
        ("sk-ab**************yz", "***"),
        ("of 0123456789abcdef0123456789abcdef", "of ***"),  # a key without a prefix
        ("claude-3-5-sonnet-20241022 does not exist", "claude-3-5-sonnet-20241022 does not exist"),
        ("accounts/fireworks/models/llama-v3p1-405b-instruct", "accounts/fireworks/models/llama-v3p1-405b-instruct"),
        ("request 5f3c2a10-9b1d-4c7e-8a35-0f1e2d3c4b5a", "request 5f3c2a10-9b1d-4c7e-8a35-0f1e2d3c4b5a"),
        ("loading... please wait", "loading... please wait"),
        ("needs 5.6 GiB,\n  3.1 GiB are free", "needs 5.6 GiB, 3.1 GiB are free"),
    ],
)
def test_clean_words_masks_keys_and_keeps_the_rest(text: str, shown: str) -> None:
    assert clean_words(text, [KEY]) == shown


def test_clean_words_masks_a_short_key_as_a_word_only() -> None:
    assert clean_words("abc: the abcess of abc", ["abc"]) == "***: the abcess of ***"


def test_clean_words_cuts_after_masking() -> None:
    """No part of a key is left at the end."""
    shown = clean_words("x " * (MAX_LENGTH // 2 - 5) + KEY + " y" * MAX_LENGTH, [KEY])
    assert shown is not None
    assert len(shown) <= MAX_LENGTH
    assert shown.endswith("…")
    assert "kx-" not in shown
    assert clean_words(" \n ", [KEY]) is None


@pytest.mark.parametrize(
    ("status", "may_quote"),
    [
        (400, True),
        (403, True),
        (413, True),
        (422, True),
        (401, False),
        (402, False),
        (404, False),
        (429, False),
        (500, False),
    ],
)
def test_find_server_words_withholds_what_may_quote_a_prompt(status: int, *, may_quote: bool) -> None:
    """A user's prompt; ours is quoted freely."""
    error = ModelHTTPError(status, "m", {"error": {"message": "cannot parse 'my secret plan'"}})
    assert find_server_words(error, None, is_own_prompt=True) == "cannot parse 'my secret plan'"
    shown = find_server_words(error, None, is_own_prompt=False)
    assert shown == (None if may_quote else "cannot parse 'my secret plan'")


def test_find_server_words_shows_what_is_about_the_key_with_any_status() -> None:
    body = {"error": {"message": f"API key not valid: {KEY}"}}
    error = ModelHTTPError.for_category(ModelAuthenticationError, status_code=400, model_name="m", body=body)
    assert find_server_words(error, SecretStr(KEY), is_own_prompt=False) == "API key not valid: ***"


def test_find_server_words_ignores_other_errors() -> None:
    """The text of a bug of ours says nothing about a server."""
    assert find_server_words(ValueError("x"), SecretStr(KEY), is_own_prompt=True) is None


HOSTILE = (
    "x",
    "eyJ-",
    "eyJaaaaaaaaaa.",
    "sk-",
    "a*",
    "..",
    "a..",
    "bearer ",
    "<",
    "<script",
    "<title",
    "</script ",
    "<a",
)


@pytest.mark.parametrize("repeated", HOSTILE)
def test_clean_words_takes_linear_time_for_hostile_text(repeated: str) -> None:
    """Of 400,000 characters; quadratic work would take minutes."""
    text = repeated * (400_000 // len(repeated))
    began = time.process_time()
    for layout in (text, f"<html>{text}"):
        words = clean_words(find_message(layout), ["sk-0123456789abcdef"])
        assert len(words or "") <= MAX_LENGTH
    assert time.process_time() - began < 2


def test_clean_words_shows_no_part_of_a_key_where_its_reading_ends() -> None:
    """A text of many masked keys shrinks, and text behind the bound does not move into view."""
    key = "verysecretvalue-" + "k" * 400
    words = clean_words(" ".join([key] * 50), [key])
    assert words is not None
    assert "secret" not in words
    assert "kkk" not in words


PROMPT: list[ModelMessage] = [
    ModelRequest([UserPromptPart("My password is hunter2, please keep it")]),
    ModelResponse([TextPart("Gern, Frau Müller.")]),
    ModelRequest([UserPromptPart(["Пароль от почты"])]),
]


@pytest.mark.parametrize(
    ("words", "masked"),
    [
        ("Unsupported parameter: temperature", "Unsupported parameter: temperature"),
        ("Invalid content 'My password is hunter2'", "Invalid content 'My … is …'"),
        ("Invalid content 'My passw", "Invalid content 'My …"),
        ("input_value=hunter2", "input_value=…"),
        ("cannot answer Müller", "cannot answer …"),
        ("bad text: Пароль от почты", "bad text: …"),
        (r"bad text: \u041f\u0430", "bad text: …"),
    ],
)
def test_quotes_are_masked_and_the_rest_is_kept(words: str, masked: str) -> None:
    assert mask_quotes(words, PROMPT) == masked
