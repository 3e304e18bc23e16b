"""Bot API client, and the mapping from aiogram types to values of the services."""
