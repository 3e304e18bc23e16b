"""Terminal chat over the same services as the bot."""
