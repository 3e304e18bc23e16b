"""What the bot can do; knows no aiogram and no aiohttp."""
