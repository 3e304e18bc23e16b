"""Time zone of dates shown to people: TIMEZONE, by default that of the machine."""

import os
from datetime import UTC, tzinfo
from functools import cache
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator

LOCAL_TIME_FILE = Path("/etc/localtime")


def parse_timezone(value: object) -> object:
    """Validates the name of a time zone of the IANA database."""
    if isinstance(value, str):
        find_zone(value)
    return value


Timezone = Annotated[str, BeforeValidator(parse_timezone)]


def find_zone(name: str) -> ZoneInfo:
    """Returns the time zone of that name.

    Raises:
        ValueError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        # A folder of the database, a path outside it, and an unknown name each raise another error.
        raise ValueError("is not the name of a time zone") from None


@cache
def machine_zone() -> tzinfo:
    """Returns the time zone of the machine: `TZ`, else `/etc/localtime`, else UTC."""
    try:
        return find_zone(os.environ.get("TZ", "").removeprefix(":"))
    except ValueError:
        pass
    try:
        with LOCAL_TIME_FILE.open("rb") as file:
            return ZoneInfo.from_file(file, key="local")
    except (OSError, ValueError):
        return UTC
