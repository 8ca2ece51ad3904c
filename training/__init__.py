"""The Q-Transformer: an offline, value-based policy whose action dimensions are decoded in turn."""
