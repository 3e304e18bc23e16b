"""The web side: health, metrics, and the state of the providers, for machines and operators."""
