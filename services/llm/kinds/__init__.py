"""A module for each SDK, which it imports; `services.llm.builders` imports a module when its kind is first asked for."""
