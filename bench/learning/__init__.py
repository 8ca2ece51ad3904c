"""What the Q-Transformer and its rivals learn from the same data: studies, cells, results."""
