"""One person floods the bot: others are answered meanwhile, and the flood costs almost nothing."""

from pathlib import Path

import pytest

from tests.adversarial.attack import ATTACKER, PATIENCE_S, SLOW, Attack
from tests.support.processes.fork_server import ForkServer

FLOOD = 3000
TOPICS = 400
pytestmark = pytest.mark.timeout(240)


def warnings(attack: Attack) -> list[str]:
    return [text for text in attack.sent_to_attacker if text.startswith("You are writing faster")]


@pytest.mark.parametrize("text", ["Hello", "/usage", "/new"])
async def test_flood_of_one_person_costs_one_warning_a_minute(attack: Attack, text: str) -> None:
    """3,000 messages, or commands, with and without a lane of their own: 20 a minute are answered."""
    for number in range(FLOOD):
        attack.telegram.user_says(f"{text} {number}", ATTACKER)
    await attack.watch(10)
    await attack.telegram.wait_for(lambda: not attack.telegram.pending, 60)
    # The watch may have lasted longer than a minute on a busy machine.
    minutes = 1 + len(warnings(attack))
    assert 1 <= len(warnings(attack)) <= 3
    assert len(attack.sent_to_attacker) <= 20 * minutes + len(warnings(attack))
    attack.assert_healthy()


async def test_flood_of_presses_is_bounded(attack: Attack) -> None:
    pressed = {
        "from": {"id": ATTACKER, "is_bot": False, "first_name": "Mallory"},
        "chat_instance": "1",
        "data": "stop:1",
    }
    for number in range(FLOOD):
        attack.telegram._queries.add(f"press-{number}")
        attack.telegram.push_update(callback_query={"id": f"press-{number}", **pressed})
    await attack.watch(10)
    await attack.telegram.wait_for(lambda: not attack.telegram.pending, 60)
    assert len(attack.telegram.callback_answers) <= 3 * 61
    attack.assert_healthy()


@pytest.mark.parametrize("limit", ["20", "0"])
async def test_topics_of_one_person_leave_places_to_others(fork_server: ForkServer, tmp_path: Path, limit: str) -> None:
    """400 topics at once with a slow provider; without a rate limit too."""
    async with Attack(fork_server, tmp_path, LIMIT_MESSAGES_PER_MINUTE=limit) as attack:
        await attack.start()
        for topic in range(1, TOPICS + 1):
            attack.telegram.user_says(SLOW, ATTACKER, message_thread_id=topic)
        await attack.watch(10)
        asked = [request for request in attack.fleet.llm.requests if SLOW in str(request.json)]
        # Four at once, and each takes ten seconds.
        assert 4 <= len(asked) <= 24
        attack.assert_healthy()


async def test_flood_without_any_limit_is_served_in_turn(fork_server: ForkServer, tmp_path: Path) -> None:
    """An operator may switch the limits off: one person's 400 topics still leave others their turn."""
    limits = {"LIMIT_MESSAGES_PER_MINUTE": "0", "LIMIT_RUNNING_PER_USER": "0"}
    async with Attack(fork_server, tmp_path, **limits) as attack:
        await attack.start()
        for topic in range(1, TOPICS + 1):
            attack.telegram.user_says("Hello", ATTACKER, message_thread_id=topic)
        # Twice as long as with the limits: all 400 answers run at once. Each would wait for all of them otherwise.
        await attack.watch(10, patience_s=2 * PATIENCE_S)
        attack.assert_healthy()
