"""HTTP server: health, metrics, the state of the providers, and the webhook."""
