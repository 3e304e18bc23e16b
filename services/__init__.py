"""Features of the bot, independent of Telegram."""
