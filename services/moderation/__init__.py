"""Group moderation: screening, judging by a model, policy and enforcement."""
