"""Files, recordings, pictures and speech of a turn."""
