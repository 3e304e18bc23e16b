"""What everything stands on; knows no aiogram and no pydantic-ai."""
