"""A person is taken out of stored JSON: payloads of jobs and transcripts."""

import json

import pytest

from core.messages import Surface
from services.privacy.redaction import ERASED_PAYLOAD, NameErasure, erase_json, speaker_name
from services.privacy.registry import ANYONE, Person

ANN = Person(Surface.TELEGRAM, 7, ("Ann Lee", "Ann", "@ann"), 1 << 60)
OTHER = {"id": 8, "is_bot": False, "first_name": "Bob"}
HER = {"id": 7, "is_bot": False, "first_name": "Ann"}
GROUP = {"id": -100, "type": "supergroup"}


@pytest.mark.parametrize(
    "payload",
    [
        {"kind": "update", "update": {"message": {"from": HER, "chat": GROUP, "text": "secret"}}},  # her message
        {"kind": "update", "update": {"message": {"from": OTHER, "chat": {"id": 7}, "text": "to her"}}},  # her chat
        {"kind": "update", "update": {"chat_member": {"from": OTHER, "new_chat_member": {"user": HER}}}},  # her joining
        {"kind": "update", "update": {"message_reaction": {"user": HER, "chat": GROUP}}},
        {"kind": "call", "call": 1, "speaker": {"user_id": 7, "name": "Ann"}},  # a permission that she gave
        {"kind": "schedule", "speaker_id": 7, "text": "secret"},
        {"kind": "regenerate", "user_id": 7},
        {"message": {"from": HER, "text": "secret"}},  # an update without an envelope
    ],
)
def test_payload_of_the_person_is_emptied(payload: dict[str, object]) -> None:
    assert erase_json(json.dumps(payload), ANN) == ERASED_PAYLOAD


@pytest.mark.parametrize(
    "stored",
    [
        json.dumps({"kind": "update", "update": {"message": {"from": OTHER, "chat": GROUP, "text": "Hello 7"}}}),
        json.dumps({"kind": "call", "call": 7, "speaker": {"user_id": 8}}),
        json.dumps([1, 7, "7"]),
        json.dumps(7),
        "not JSON",
    ],
)
def test_payload_without_the_person_is_left_alone(stored: str) -> None:
    assert erase_json(stored, ANN) is None


def test_list_that_names_the_person_is_stripped_and_not_emptied() -> None:
    """It is no payload of theirs: such as stored updates of an album."""
    erased = erase_json(json.dumps([{"from": OTHER, "via": HER}]), ANN)
    assert erased is not None
    assert json.loads(erased) == [{"from": OTHER, "via": {"id": 0, "is_bot": False, "first_name": ANYONE}}]


def test_reply_to_the_person_keeps_the_reply_alone() -> None:
    quoted = {"message_id": 1, "date": 5, "from": HER, "chat": GROUP, "text": "secret", "caption": "Ann"}
    message = {"from": OTHER, "chat": GROUP, "text": "Thanks", "reply_to_message": quoted}
    erased = erase_json(json.dumps({"kind": "update", "update": {"message": message}}), ANN)
    assert erased is not None
    kept = json.loads(erased)["update"]["message"]
    assert kept == {**message, "reply_to_message": {"message_id": 1, "date": 5, "chat": GROUP}}


@pytest.mark.parametrize(
    ("until_s", "erased"),
    [(None, ERASED_PAYLOAD), (100.0, ERASED_PAYLOAD), (99.0, None)],  # all; up to its second; newer
)
def test_newer_payloads_are_kept(until_s: float | None, erased: str | None) -> None:
    payload = {"kind": "update", "update": {"update_id": 1, "message": {"from": HER, "date": 100}}}
    assert erase_json(json.dumps(payload), ANN, until_s) == erased


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("Ann: hello", "Ann"),
        ('"Ann: Lee": hello', "Ann: Lee"),  # a name that could be taken for a frame is quoted
        ("[Quoted]\nBob: x\n[The message itself:]\nAnn: y", "Ann"),
        ({"content": "Ann: spoken", "metadata": {}}, "Ann"),  # a transcript
        (["Ann: first", "more"], "Ann"),
        ("no name here", None),
        (7, None),
        ([], None),
    ],
)
def test_speaker_name_is_that_before_the_message(content: object, name: str | None) -> None:
    wrapped = content if isinstance(content, str | list) else [content]
    assert speaker_name(json.dumps([{"parts": [{"content": wrapped}]}])) == name


@pytest.mark.parametrize("stored", ["", "{}", "[]", "[{}]", '[{"parts": []}]'])
def test_speaker_name_of_another_form_is_none(stored: str) -> None:
    assert speaker_name(stored) is None


def test_names_are_replaced_as_words() -> None:
    """The first name alone only in the person's own turns, where it means nobody else."""
    names = NameErasure(ANN.names)
    assert names.in_text("Ann Lee, Annabel, @ann and Ann", is_own=True) == f"{ANYONE}, Annabel, {ANYONE} and {ANYONE}"
    assert names.in_text("Ann Lee, Annabel, @ann and Ann", is_own=False) == f"{ANYONE}, Annabel, {ANYONE} and Ann"


def test_own_transcript_loses_the_data_of_tools() -> None:
    parts = [
        {"part_kind": "user-prompt", "content": "Ann Lee: hi", "timestamp": None, "index": 1},
        {"part_kind": "tool-call", "tool_name": "Ann Lee", "args": '{"note": "secret"}'},
        {"part_kind": "tool-return", "content": "secret"},
        {"part_kind": "retry-prompt", "content": "secret"},
    ]
    names, stored = NameErasure(ANN.names), json.dumps([{"parts": parts}])
    (own,) = json.loads(names.in_transcript(stored, is_own=True))
    assert [part.get("content", part.get("args")) for part in own["parts"]] == [f"{ANYONE}: hi", "{}", "", ""]
    (others,) = json.loads(names.in_transcript(stored, is_own=False))
    assert others["parts"][1:] == parts[1:]
    assert names.in_transcript("not JSON", is_own=True) == "[]"
