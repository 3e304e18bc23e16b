"""Number of histories that the state machine tries: `--hypothesis-profile long` asks for many, new ones each time."""

from hypothesis import settings

settings.register_profile("long", max_examples=5000, stateful_step_count=60, deadline=None, database=None)
