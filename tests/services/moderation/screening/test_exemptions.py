"""Exemptions of authors from moderation, by the cached list of admins and by a new look-up."""

import pytest

from services.moderation.domain.message import Author, AuthorKind
from services.moderation.domain.ports import Administrators, Standing
from services.moderation.screening.exemptions import Exemption, Exemptions, find_exemption
from tests.support.moderation_harness import ADMIN, GROUP, NEWCOMER, SELF, RecordingGroup

LINKED, SERVICE = -900, 777000
ADMINS = Administrators(frozenset({ADMIN}), LINKED)
AUTHORS = {
    "the group itself": (Author(GROUP, AuthorKind.CHANNEL, "Ann"), Exemption.ANONYMOUS_ADMIN),
    "the linked channel": (Author(LINKED, AuthorKind.CHANNEL, "Ann"), Exemption.LINKED_CHANNEL),
    "another channel": (Author(-901, AuthorKind.CHANNEL, "Ann"), None),
    "the bot": (Author(SELF, AuthorKind.BOT, "Ann"), Exemption.SELF),
    "Telegram": (Author(SERVICE, AuthorKind.USER, "Ann"), Exemption.SERVICE),
    "an admin": (Author(ADMIN, AuthorKind.USER, "Ann"), Exemption.ADMIN),
    "a member": (Author(NEWCOMER, AuthorKind.USER, "Ann"), None),
}
UNKNOWN = {"the linked channel", "another channel", "an admin", "a member"}
"""Authors whose exemption depends on the list of admins."""


@pytest.mark.parametrize("who", AUTHORS)
async def test_author_is_exempt_by_the_list_of_admins(who: str) -> None:
    author, exemption = AUTHORS[who]
    assert find_exemption(GROUP, author, ADMINS, SELF) is exemption
    without_list = Exemption.ADMINS_UNKNOWN if who in UNKNOWN else exemption
    assert find_exemption(GROUP, author, None, SELF) is without_list


@pytest.mark.parametrize("who", AUTHORS)
async def test_author_is_exempt_anew_before_a_sanction(who: str) -> None:
    """People are looked up; the bot and Telegram itself are exempt whatever the look-up would say."""
    author, exemption = AUTHORS[who]
    group = RecordingGroup()
    group.admins = ADMINS
    group.standings = dict.fromkeys((SELF, SERVICE), Standing.MEMBER)
    assert await Exemptions(group, SELF).find_anew(GROUP, author) is exemption


async def test_admin_of_whom_the_list_does_not_know_is_exempt_anew() -> None:
    group = RecordingGroup()
    group.standings = {NEWCOMER: Standing.ADMIN, 7: Standing.UNKNOWN}
    exemptions, [new, unknown] = (
        Exemptions(group, SELF),
        [Author(each, AuthorKind.USER, "Ann") for each in (NEWCOMER, 7)],
    )
    assert await exemptions.find_anew(GROUP, new) is Exemption.ADMIN
    assert await exemptions.find_anew(GROUP, unknown) is Exemption.ADMINS_UNKNOWN
