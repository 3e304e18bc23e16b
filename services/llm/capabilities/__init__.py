"""What providers do beside chat: embeddings and transcription, each with an order and health of its own."""
