"""Foundation of the other packages: imports neither aiogram nor pydantic-ai."""
