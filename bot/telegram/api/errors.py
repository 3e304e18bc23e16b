"""Classifies failed Bot API calls by the next step of the caller."""

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

from core.transport_errors import recognise_connection_error


class ApiFailure(Enum):
    """The class of a failure. Its names are label values of the API call metrics."""

    FLOOD = auto()
    """Rate limited (429): the chat waits for `retry_after`."""
    PASSING = auto()
    """Not executed; a retry is likely to succeed."""
    UNKNOWN = auto()
    """The request may or may not have been executed."""
    DONE = auto()
    """Executed; only the response could not be parsed."""
    UNCHANGED = auto()
    """The message already has this content."""
    MESSAGE_GONE = auto()
    """The message is deleted or can no longer be edited."""
    ENTITIES = auto()
    """Telegram rejects the formatting entities."""
    MARKUP = auto()
    """Telegram rejects the keyboard."""
    TOPIC = auto()
    """The topic is closed or deleted."""
    REPLY = auto()
    """The replied-to message does not exist, or not the part of it that is quoted."""
    MIGRATED = auto()
    """The group became a supergroup with another id."""
    UNREACHABLE = auto()
    """The bot cannot write to this chat."""
    NO_METHOD = auto()
    """The Bot API server does not support the method."""
    REFUSED = auto()
    """Any other rejection; a retry would fail too."""


# The order matters: some wordings contain others.
_WORDINGS = tuple(
    (failure, re.compile(pattern, re.IGNORECASE))
    for failure, pattern in (
        (ApiFailure.UNCHANGED, r"message is not modified|message_not_modified"),
        (ApiFailure.TOPIC, r"topic_\w+|message_thread_\w+|\b(topic|thread)\b.*\b(not found|closed|deleted|invalid)\b"),
        # "message to be replied not found", "reply message not found", "REPLY_TO_INVALID", "QUOTE_TEXT_INVALID".
        (ApiFailure.REPLY, r"\brepl(y|ied)(?![ _](markup|keyboard))|reply_(?!markup|keyboard)\w+|quote"),
        (
            ApiFailure.MESSAGE_GONE,
            (
                r"message to (edit|delete) not found|message can't be (edited|deleted)|message_id_invalid"
                r"|message identifier is not specified|message_author_required|message_edit_time_expired"
            ),
        ),
        (ApiFailure.ENTITIES, r"entit(y|ies)|custom emoji"),
        (ApiFailure.MARKUP, r"button|keyboard|reply markup|reply_markup"),
        (
            ApiFailure.UNREACHABLE,
            (
                r"chat not found|user not found|user is deactivated|blocked by the user|user_is_blocked|peer_id_invalid"
                r"|was kicked|was deactivated|not a member|no rights to send|not enough rights|chat_write_forbidden"
                r"|chat_restricted|chat_(guest_)?send_(plain_)?forbidden|input_user_deactivated|you_blocked_user"
                r"|administrator rights|chat_admin_required|channel_private|user_banned_in_channel"
                r"|group is deactivated|chat was deleted"
            ),
        ),
    )
)
# A proxy in front of a Bot API server returns an HTML page while the server is down.
_GATEWAY_PAGE = re.compile(
    r"<[^>]+>[^<]*\b50[23]\b|^\s*(error code: )?50[23]\b|^\s*(bad gateway|service unavailable|upstream connect)",
    re.IGNORECASE,
)
_FLOOD = re.compile(r"too many requests|flood control|(flood|slowmode)(_premium)?_wait", re.IGNORECASE)
_PAUSE = re.compile(r"(?:retry after |retry in |_wait_)(\d{1,6})", re.IGNORECASE)


def classify_api_error(error: BaseException) -> ApiFailure:  # noqa: PLR0911 - one return a case
    """Classifies an error raised by a call of `aiogram.Bot`."""
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
            return _classify_payload(error.data)
        case TelegramNotFound():
            return ApiFailure.NO_METHOD
        case TelegramAPIError() if _FLOOD.search(error.message):
            # Flood control without `retry_after`, or with another status than 429.
            return ApiFailure.FLOOD
        case TelegramBadRequest() | TelegramForbiddenError():
            return _classify_wording(error)
        case _:
            return ApiFailure.REFUSED


def find_pause_s(error: BaseException) -> float | None:
    """Returns the seconds that flood control names; None if it names none."""
    if isinstance(error, TelegramRetryAfter):
        return error.retry_after
    named = _PAUSE.search(error.message) if isinstance(error, TelegramAPIError) else None
    return float(named[1]) if named is not None else None


def describe_api_error(error: BaseException) -> str:
    """Returns a short reason for the log, without the payload: that may contain message text."""
    if isinstance(error, TelegramNetworkError):
        # Without its text: some contain the URL, and with it the token.
        return recognise_connection_error(error) or f"{type(error).__name__}: {type(error.__cause__).__name__}"
    if isinstance(error, TelegramAPIError):
        return error.message[:200]
    if isinstance(error, ClientDecodeError):
        return "not an answer of the Bot API"
    return type(error).__name__


def parse_message_id(error: BaseException) -> int | None:
    """Returns the id of the sent message from a response that aiogram could not parse; None if it has none."""
    if isinstance(error, ClientDecodeError):
        match error.data:
            case {"ok": True, "result": {"message_id": int(message_id)}}:
                return message_id
            case _:
                pass
    return None


def _classify_payload(data: object) -> ApiFailure:
    match data:
        case {"ok": True}:
            return ApiFailure.DONE
        case str() if _GATEWAY_PAGE.search(data):
            return ApiFailure.PASSING
        case _:
            return ApiFailure.UNKNOWN


def _classify_wording(error: TelegramBadRequest | TelegramForbiddenError) -> ApiFailure:
    for failure, wording in _WORDINGS:
        if wording.search(error.message):
            return failure
    return ApiFailure.UNREACHABLE if isinstance(error, TelegramForbiddenError) else ApiFailure.REFUSED
