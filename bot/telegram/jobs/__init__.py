"""Jobs of the durable inbox."""
