"""Programs that do the same work as the measured code, each in its own process."""
