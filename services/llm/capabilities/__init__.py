"""Capabilities beside chat: embeddings, transcription, speech, images; each has an order and a health of its own."""
