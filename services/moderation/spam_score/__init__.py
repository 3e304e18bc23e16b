"""Local linear spam score: training, storage, scoring."""
