"""A chat in the terminal, over the same services as Telegram's."""
