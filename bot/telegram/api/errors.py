"""What a failed Bot API call means for what is done next."""

import re
from enum import Enum, auto

from aiogram.exceptions import (
    ClientDecodeError,
    TelegramAPIError,
    TelegramBadRequest,
    TelegramEntityTooLarge,
    TelegramForbiddenError,
    TelegramMigrateToChat,
    TelegramNetworkError,
    TelegramNotFound,
    TelegramRetryAfter,
    TelegramServerError,
)
from aiohttp import ClientConnectorError, ConnectionTimeoutError


class ApiFailure(Enum):
    """Why a call failed, as far as the next step depends on it."""

    FLOOD = auto()
    """Too many calls: the chat rests for as long as Telegram says."""
    PASSING = auto()
    """It was not carried out, and may well be a second later."""
    UNKNOWN = auto()
    """Nobody can tell whether it was carried out."""
    DONE = auto()
    """It was carried out; only the answer makes no sense to us."""
    UNCHANGED = auto()
    """It already is as it should become."""
    MESSAGE_GONE = auto()
    """The message cannot be changed any more."""
    ENTITIES = auto()
    """Telegram does not take the formatting."""
    MARKUP = auto()
    """Telegram does not take the buttons."""
    TOPIC = auto()
    """The topic is closed or deleted."""
    REPLY = auto()
    """The message that is replied to cannot be."""
    MIGRATED = auto()
    """The group goes on under another id."""
    UNREACHABLE = auto()
    """The bot cannot speak in this chat."""
    NO_METHOD = auto()
    """This Bot API server does not know the method."""
    REFUSED = auto()
    """Anything else: asking again would change nothing."""


# In the order in which they are looked for: some wordings contain others.
_WORDINGS = tuple(
    (fault, re.compile(pattern, re.IGNORECASE))
    for fault, pattern in (
        (ApiFailure.UNCHANGED, r"message is not modified|message_not_modified"),
        (ApiFailure.TOPIC, r"message thread not found|topic_(closed|deleted|id_invalid)|message_thread_invalid"),
        (ApiFailure.REPLY, r"message to be replied not found|replied message not found|reply_message_id_invalid"),
        (
            ApiFailure.MESSAGE_GONE,
            (
                r"message to (edit|delete) not found|message can't be (edited|deleted)|message_id_invalid"
                r"|message identifier is not specified"
            ),
        ),
        (ApiFailure.ENTITIES, r"entit(y|ies)"),
        (ApiFailure.MARKUP, r"button_|inline keyboard|reply markup|reply_markup"),
        (
            ApiFailure.UNREACHABLE,
            (
                r"chat not found|user not found|user is deactivated|blocked by the user|user_is_blocked|peer_id_invalid"
                r"|was kicked|was deactivated|not a member|no rights to send|not enough rights|chat_write_forbidden"
                r"|chat_restricted|chat_send_plain_forbidden|input_user_deactivated"
            ),
        ),
    )
)
# Proxies in front of a Bot API server answer with a page when the server behind them cannot be reached.
_GATEWAY_PAGE = re.compile(r"<[^>]+>[^<]*\b50[23]\b")


def classify_api_error(error: BaseException) -> ApiFailure:  # noqa: PLR0911 - one line a case reads best
    """Sort an error that a call of `aiogram.Bot` raised."""
    match error:
        case TelegramRetryAfter():
            return ApiFailure.FLOOD
        case TelegramMigrateToChat():
            return ApiFailure.MIGRATED
        case TelegramServerError():
            return ApiFailure.PASSING
        case TelegramEntityTooLarge():
            return ApiFailure.REFUSED
        case TelegramNetworkError():
            never_sent = isinstance(error.__cause__, ClientConnectorError | ConnectionTimeoutError)
            return ApiFailure.PASSING if never_sent else ApiFailure.UNKNOWN
        case ClientDecodeError():
            return _by_payload(error.data)
        case TelegramNotFound():
            return ApiFailure.NO_METHOD
        case TelegramBadRequest() | TelegramForbiddenError():
            return _by_wording(error)
        case TelegramAPIError():
            # A 429 whose `retry_after` is missing or zero has no class of its own.
            return ApiFailure.FLOOD if "too many requests" in error.message.lower() else ApiFailure.REFUSED
        case _:
            return ApiFailure.REFUSED


def describe_api_error(error: BaseException) -> str:
    """An error in a few words for a log: never the payload, in which somebody's words may be."""
    if isinstance(error, TelegramNetworkError):
        # Not in its own words: some name the address, which has the token in it.
        return f"{type(error).__name__}: {type(error.__cause__).__name__}"
    if isinstance(error, TelegramAPIError):
        return error.message[:200]
    return type(error).__name__


def message_id_in(error: BaseException) -> int | None:
    """The id of the message that was sent, from an answer that could not be read as a whole."""
    if isinstance(error, ClientDecodeError):
        match error.data:
            case {"ok": True, "result": {"message_id": int(message_id)}}:
                return message_id
            case _:
                pass
    return None


def _by_payload(data: object) -> ApiFailure:
    match data:
        case {"ok": True}:
            return ApiFailure.DONE
        case str() if _GATEWAY_PAGE.search(data):
            return ApiFailure.PASSING
        case _:
            return ApiFailure.UNKNOWN


def _by_wording(error: TelegramBadRequest | TelegramForbiddenError) -> ApiFailure:
    for fault, wording in _WORDINGS:
        if wording.search(error.message):
            return fault
    return ApiFailure.UNREACHABLE if isinstance(error, TelegramForbiddenError) else ApiFailure.REFUSED
