"""The Q-Transformer: an offline, value-based policy that decodes action dimensions in turn."""
