"""Training pairs: how they are made, stored and read."""
