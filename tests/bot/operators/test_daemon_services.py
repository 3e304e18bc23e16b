"""Titles of groups for the console: within a bounded time, and without those that Telegram does not tell."""

import asyncio
from typing import Any

from bot.operators.daemon_services import ModerationQueue
from services.moderation.domain.ports import Administrators, Standing


class Directory:
    """Knows the titles of the groups 1 and 2; does not answer about group 3."""

    async def get_admins(self, group_id: int) -> Administrators | None:
        if group_id == 3:
            await asyncio.Event().wait()
        titles: dict[int, str | None] = {1: "Cats", 2: None}
        return Administrators(frozenset(), title=titles[group_id]) if group_id in titles else None

    async def fetch_standing(self, group_id: int, user_id: int) -> Standing:
        return Standing.UNKNOWN


async def test_find_titles_leaves_out_groups_that_are_not_told_in_time() -> None:
    unused: Any = None
    queue = ModerationQueue(unused, unused, unused, Directory(), unused, unused, titles_s=0.02)
    assert await queue.find_titles([1, 1, 2, 3, 4]) == {1: "Cats"}
    assert await queue.find_titles([]) == {}
