"""Encryption of stored secrets."""

import pytest
from pydantic import SecretStr

from services.admin.config_store import SecretBox, SecretUnreadable

OLD, NEW = SecretStr("the-older-of-two-keys-with-32-characters"), SecretStr("the-newer-of-two-keys-with-32-characters")


def test_box_opens_what_it_sealed_and_shows_nothing_of_it() -> None:
    box = SecretBox([NEW])
    sealed = box.seal("sk-secret", "OPENAI_API_KEY")
    assert box.open(sealed, "OPENAI_API_KEY") == "sk-secret"
    assert b"sk-secret" not in sealed
    assert box.seal("sk-secret", "OPENAI_API_KEY") != sealed


def test_rotated_box_opens_older_seals_and_renews_them() -> None:
    sealed = SecretBox([OLD]).seal("sk-secret", "OPENAI_API_KEY")
    rotated = SecretBox([NEW, OLD])
    assert not rotated.is_newest(sealed)
    renewed = rotated.seal(rotated.open(sealed, "OPENAI_API_KEY"), "OPENAI_API_KEY")
    assert rotated.is_newest(renewed)
    assert SecretBox([NEW]).open(renewed, "OPENAI_API_KEY") == "sk-secret"


@pytest.mark.parametrize(
    ("keys", "name"),
    [([NEW], "OPENAI_API_KEY"), ([OLD], "GROQ_API_KEY")],
    ids=["a key that is gone", "a row that was swapped"],
)
def test_box_refuses_what_is_not_its_own(keys: list[SecretStr], name: str) -> None:
    sealed = SecretBox([OLD]).seal("sk-secret", "OPENAI_API_KEY")
    with pytest.raises(SecretUnreadable, match=name):
        SecretBox(keys).open(sealed, name)


@pytest.mark.parametrize("cut", range(0, 40, 3))
def test_box_refuses_a_damaged_value(cut: int) -> None:
    box = SecretBox([NEW])
    sealed = box.seal("sk-secret", "OPENAI_API_KEY")
    with pytest.raises(SecretUnreadable):
        box.open(sealed[:cut], "OPENAI_API_KEY")
    with pytest.raises(SecretUnreadable):
        box.open(sealed[:cut] + bytes([sealed[cut] ^ 1]) + sealed[cut + 1 :], "OPENAI_API_KEY")
