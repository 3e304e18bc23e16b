"""LLM servers on loopback that speak the wire of each provider kind."""
