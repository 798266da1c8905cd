"""Training pairs: made, kept, read."""
