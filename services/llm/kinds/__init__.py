"""A module for each SDK, which imports it; the builder imports a module when its kind is first asked for."""
