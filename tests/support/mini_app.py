"""Init data of Mini Apps, signed as Telegram does."""

import hashlib
import hmac
import json
from urllib.parse import urlencode


def init_data(token: str, user_id: int, at: float, **others: str) -> str:
    """Return the init data of a user who opened the Mini App of the bot with this token."""
    user = json.dumps({"id": user_id, "first_name": "Ann & Co", "language_code": "en"}, separators=(",", ":"))
    fields = {"auth_date": str(int(at)), "query_id": "q", "user": user, **others}
    return urlencode({**fields, "hash": sign(token, fields)})


def sign(token: str, fields: dict[str, str]) -> str:
    """Return the signature of fields by the rules of Telegram's documentation."""
    key = hmac.new(b"WebAppData", token.encode(), hashlib.sha256).digest()
    lines = "\n".join(f"{name}={value}" for name, value in sorted(fields.items()))
    return hmac.new(key, lines.encode(), hashlib.sha256).hexdigest()
