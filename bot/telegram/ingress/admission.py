"""Admission: the users and chats that the bot answers, and their rates; a surplus is refused before it is stored."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from aiogram.types import Chat, Message, Update, User

from bot.telegram.api.updates import is_group, message_speaker
from bot.telegram.jobs import RejectionReason
from core.clock import Clock
from core.messages import Surface, chat_ref
from services.limits.party_limits import RateEvent, RateLimiter

OLDEST_S = 24 * 3600.0
"""Telegram keeps updates for a day; no message can have been waiting for longer."""


@dataclass(frozen=True, slots=True)
class AccessList:
    """ADMIN_IDS, ALLOWED_USER_IDS and ALLOWED_CHAT_IDS; empty users and chats admit every update."""

    admins: frozenset[int] = frozenset()
    users: frozenset[int] = frozenset()
    chats: frozenset[int] = frozenset()

    def admits(self, update: Update) -> bool:
        """Returns whether an update comes from a listed user or chat."""
        user, chat, _ = _parties(update)
        # A private chat has the id of its user, and some updates carry only the chat.
        return self.admits_ids(
            {each.id for each in (user, chat) if each is not None}, None if chat is None else chat.id
        )

    def admits_ids(self, users: Collection[int], chat_id: int | None) -> bool:
        """Returns whether one of these users, or the chat, is listed."""
        if not self.users and not self.chats:
            return True
        return not (self.users | self.admins).isdisjoint(users) or chat_id in self.chats


class BanList(Protocol):
    """Looks up bans."""

    is_empty: bool
    """True if there is none."""

    def is_banned(self, *references: str) -> bool:
        """Returns whether any of these people and chats is banned."""
        ...


def find_denial(update: Update, access: AccessList, bans: BanList | None) -> RejectionReason | None:
    """Returns why the bot does not answer the sender of an update, None if it does; operators are never banned."""
    if not access.admits(update):
        return "not-allowed"
    if bans is None or bans.is_empty:
        return None
    senders = {each.id for each in _parties(update) if each is not None}
    references = [chat_ref(Surface.TELEGRAM, each) for each in senders]
    return "banned" if senders.isdisjoint(access.admins) and bans.is_banned(*references) else None


def _parties(update: Update) -> tuple[User | None, Chat | None, Chat | None]:
    """Returns the user, the chat and the sending channel of an update, as far as it has them."""
    event = (
        update.message
        or update.edited_message
        or update.callback_query
        or update.stopped_message_generation
        or update.message_reaction
        or update.guest_message
    )
    user: User | None = getattr(event, "from_user", None) or getattr(event, "user", None)
    chat: Chat | None = getattr(event, "chat", None) or getattr(getattr(event, "message", None), "chat", None)
    return user, chat, getattr(event, "sender_chat", None)


@dataclass(frozen=True, slots=True)
class AdmissionLimits:
    """Rates of admitted updates, per minute.

    Args:
        messages: messages and commands of a person, over all chats; 0: no limit of any kind.
        exempt: users without a limit.
        group_factor: how many times as many messages a group may send to the bot as one person.
        press_factor: how many times as many buttons a person may press.
    """

    messages: int = 20
    exempt: frozenset[int] = frozenset()
    group_factor: int = 5
    press_factor: int = 3


@dataclass(frozen=True, slots=True)
class AdmissionRefusal:
    """An update over a limit.

    Args:
        is_told: whether its sender is to be told, once a minute.
        renewal_s: seconds until the sender is admitted again.
    """

    is_told: bool
    renewal_s: int


@dataclass(frozen=True, slots=True)
class _Origin:
    """Origin of an update: the person, the group if it is one, and the rate in which it counts."""

    person: int
    group: int | None
    event_id: str
    at: float
    kind: str
    factor: int

    def event(self, *, of_group: bool, limits: AdmissionLimits) -> RateEvent:
        """Returns the event in the window of the person, or of the group."""
        limit = limits.messages * self.factor * (limits.group_factor if of_group else 1)
        party = f"group:{self.group}" if of_group else f"user:{self.person}"
        return RateEvent(f"{self.kind}:{party}", self.event_id, self.at, limit)

    def notice(self, kind: str, now: float, *, of_group: bool) -> RateEvent:
        """Returns the event of a notice to the person, or in the chat, of which there is one a minute."""
        party = f"chat:{self.group or self.person}" if of_group else f"user:{self.person}"
        return RateEvent(f"told:{kind}:{self.kind}:{party}", self.event_id, now, 1)


class Admission:
    """Decides which updates are over a limit, and which refusals are told.

    Args:
        rates: the windows.
        clock: dates presses.
        limits: the rates.
    """

    def __init__(self, rates: RateLimiter, clock: Clock, limits: AdmissionLimits) -> None:
        self._rates = rates
        self._clock = clock
        self._limits = limits

    def is_known_surplus(self, raw: Mapping[str, Any]) -> bool:
        """Returns whether a raw update is certainly refused and its sender has been told: a flood costs no parsing.

        Of messages only those of private chats: in a group they may have to be moderated.
        """
        message, query = raw.get("message"), raw.get("callback_query")
        now, update_id = self._clock.time(), f"{raw['update_id']:020d}"
        match message or query:
            case {"chat": {"type": "private", "id": int(person)}, "date": int(date), **fields} if message:
                at = min(max(float(date), now - OLDEST_S), now)
                album = fields.get("media_group_id")
                event_id = f"album:{album}" if album is not None else update_id
                origin = _Origin(person, None, event_id, at, "message", 1)
            case {"from": {"id": int(person)}}:
                origin = _Origin(person, None, update_id, now, "press", self._limits.press_factor)
            case _:
                return False
        if not self._limits.messages or origin.person in self._limits.exempt:
            return False
        is_told = self._rates.is_full(origin.notice("rate", now, of_group=False))
        return is_told and self._rates.is_full(origin.event(of_group=False, limits=self._limits))

    async def judge(self, updates: Sequence[Update]) -> list[AdmissionRefusal | None]:
        """Returns for each update, in order, its refusal, or None if it is admitted. Idempotent.

        A person's surplus does not count against the group.
        """
        refusals: list[AdmissionRefusal | None] = [None] * len(updates)
        origins = {
            index: origin
            for index, update in enumerate(updates)
            if self._limits.messages and (origin := self._origin(update)) and origin.person not in self._limits.exempt
        }
        refused: list[int] = []
        for of_group in (False, True):
            counted = [index for index, origin in origins.items() if not of_group or origin.group is not None]
            events = [origins[index].event(of_group=of_group, limits=self._limits) for index in counted]
            for index, event, is_admitted in zip(counted, events, await self._rates.admit(events), strict=True):
                if not is_admitted:
                    refused.append(index)
                    refusals[index] = AdmissionRefusal(
                        is_told=False, renewal_s=round(self._rates.renewal_s(event.window, event.at))
                    )
                    del origins[index]
        told = await self.are_told([("rate", updates[index]) for index in sorted(refused)])
        for index, is_told in zip(sorted(refused), told, strict=True):
            refusal = refusals[index]
            if refusal is not None and is_told:
                refusals[index] = AdmissionRefusal(is_told=True, renewal_s=refusal.renewal_s)
        return refusals

    async def are_told(self, notices: Sequence[tuple[str, Update]]) -> list[bool]:
        """Returns for each notice, a kind and an update, whether it is sent: one a minute to a person and in a group.

        Idempotent.
        """
        now = self._clock.time()
        told = [False] * len(notices)
        left = {
            index: (kind, origin) for index, (kind, update) in enumerate(notices) if (origin := self._origin(update))
        }
        for of_group in (False, True):
            asked = list(left)
            events = [origin.notice(kind, now, of_group=of_group) for kind, origin in left.values()]
            for index, is_first in zip(asked, await self._rates.admit(events), strict=True):
                if not is_first:
                    del left[index]
        for index in left:
            told[index] = True
        return told

    def _origin(self, update: Update) -> _Origin | None:
        now, update_id = self._clock.time(), f"{update.update_id:020d}"
        match update:
            case Update(message=Message() as message):
                # The parts of an album are one message.
                album = message.media_group_id
                return _Origin(
                    person=message_speaker(message).user_id,
                    group=message.chat.id if is_group(message) else None,
                    event_id=f"album:{album}" if album is not None else update_id,
                    at=min(max(message.date.timestamp(), now - OLDEST_S), now),
                    kind="message",
                    factor=1,
                )
            case Update(guest_message=Message() as mention):
                # Keyed by the person: the bot is not in the chat.
                return _Origin(message_speaker(mention).user_id, None, update_id, now, "message", 1)
            case Update(edited_message=Message() as edited):
                group = edited.chat.id if is_group(edited) else None
                person = message_speaker(edited).user_id
                return _Origin(person, group, update_id, now, "press", self._limits.press_factor)
            case Update(callback_query=query) if query is not None:
                chat = query.message.chat if query.message is not None else None
                group = chat.id if chat is not None and chat.id != query.from_user.id else None
                return _Origin(query.from_user.id, group, update_id, now, "press", self._limits.press_factor)
            case Update(message_reaction=changed) if changed is not None and changed.user is not None:
                group = changed.chat.id if changed.chat.id != changed.user.id else None
                return _Origin(changed.user.id, group, update_id, now, "press", self._limits.press_factor)
            case Update(stopped_message_generation=stopped) if stopped is not None:
                return _Origin(stopped.chat.id, None, update_id, now, "press", self._limits.press_factor)
            case _:
                return None
