"""Settings, read from the environment and `.env` and validated together."""
