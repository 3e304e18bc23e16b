"""Malformed answers of the Bot API: the daemon keeps running, and other people are answered."""

from pathlib import Path

import pytest

from tests.adversarial.attack import ATTACKER, Attack
from tests.support.processes.fork_server import ForkServer

pytestmark = pytest.mark.timeout(240)

NO_UPDATES = (
    '{"ok": true, "result": null}',
    '{"ok": true, "result": "nothing"}',
    '{"ok": true, "result": {"update_id": 1}}',
    '{"ok": true, "result": [null, 7, "x", [], {}, {"update_id": null}, {"update_id": -1}, {"update_id": true}]}',
    '{"ok": true, "result": [{"update_id": ' + "9" * 5000 + "}]}",
    '{"ok": true}',
    '{"ok": false}',
    '{"ok": false, "description": null, "parameters": {"retry_after": -1}}',
    "null",
    "",
    "<html>502</html>",
    "[" * 50_000,
)
CALLS = ("sendMessage", "editMessageText", "sendChatAction", "answerCallbackQuery")
ODD_RESULTS = ('{"ok": true, "result": null}', '{"ok": true, "result": [null]}', '{"ok": false}')
GARBAGE = (
    {"message": None},
    {"message": "text"},
    {"message": {"message_id": 1, "date": 10**18, "chat": {"id": 7, "type": "private"}, "text": "x"}},
    {"message": {"message_id": 10**30, "date": 1, "chat": {"id": 10**30, "type": "private"}, "text": "x"}},
    {"message": {"message_id": 1, "date": 1, "chat": {"id": 0, "type": "no such type"}, "from": []}},
    {"message": {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}, "entities": [{"offset": -5}]}},
    {"callback_query": {"id": None, "data": 5}},
    {"callback_query": []},
    {"stopped_message_generation": {"chat": {}, "draft_id": "x"}},
    {"edited_message": {"text": ["a", "list"]}},
    {"unknown_kind": {"deep": [[[[[]]]]]}},
    {},
)
FORGED = (
    "retry:99999999999999999999",
    "thrs:-5",
    "stop:٥",
    "retry:",
    "with:5:" + "x" * 57,
    "inc:5:undo",
    "mod:mode:loud",
    "cons:5:maybe",
    "\x00" * 64,
    "🎭" * 16,
)


async def test_answers_without_updates_do_not_end_the_daemon(fork_server: ForkServer, tmp_path: Path) -> None:
    """The poll goes on a second later; with several in a row the pauses grow. The daemon's clock shortens them."""
    async with Attack(fork_server, tmp_path) as attack:
        await attack.start("tests.support.processes.fast_daemon")
        for body in NO_UPDATES:
            fault = attack.telegram.garble("getUpdates", executed=False, body=body)
            # Its message ends the poll in flight, and the next one meets the fault.
            await attack.bystander_waits_s(timeout_s=30)
            await attack.telegram.wait_for(lambda fault=fault: fault.times == 0, 30)
        attack.telegram.garble("getUpdates", 3, executed=False, body=NO_UPDATES[0])
        await attack.bystander_waits_s(timeout_s=30)
        await attack.bystander_waits_s(timeout_s=30)
        assert attack.daemon.is_alive


async def test_garbage_among_updates_is_skipped(attack: Attack) -> None:
    for number in range(200):
        attack.telegram.push_update(**GARBAGE[number % len(GARBAGE)])
    await attack.watch(5)
    await attack.telegram.wait_for(lambda: not attack.telegram.pending, 30)
    attack.assert_healthy()


async def test_odd_answers_to_other_calls_are_no_bugs(attack: Attack) -> None:
    """Without a message id an answer is not edited; nothing becomes a dead letter."""
    sender = {"id": ATTACKER, "is_bot": False, "first_name": "Mallory"}
    cases = [(method, body) for method in CALLS for body in ODD_RESULTS]
    for number, (method, body) in enumerate(cases, 1):
        fault = attack.telegram.garble(method, 3, body=body)
        attack.telegram.user_says("Hello", ATTACKER + number)
        attack.telegram._queries.add(f"press-{number}")
        attack.telegram.push_update(
            callback_query={"id": f"press-{number}", "from": sender, "chat_instance": "1", "data": "stop:1"}
        )
        await attack.telegram.wait_for(
            lambda number=number: (
                f"press-{number}" in attack.telegram.callback_answers
                and attack.telegram.chat(ATTACKER + number).texts()
            ),
            30,
        )
        fault.end()
    await attack.watch(2)
    attack.assert_healthy()


async def test_forged_buttons_are_answered_once_without_retries(attack: Attack) -> None:
    sender = {"id": ATTACKER, "is_bot": False, "first_name": "Mallory"}
    for number, data in enumerate(FORGED):
        attack.telegram._queries.add(f"forged-{number}")
        attack.telegram.push_update(
            callback_query={"id": f"forged-{number}", "from": sender, "chat_instance": "1", "data": data}
        )
    await attack.telegram.wait_for(lambda: len(attack.telegram.callback_answers) == len(FORGED), 20)
    await attack.watch(2)
    assert len(attack.telegram.calls_of("answerCallbackQuery")) == len(FORGED)
    assert attack.daemon.events("inbox.job_failed") == []
    attack.assert_healthy()
