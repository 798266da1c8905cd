"""Reconstruction, training and, later, the agent that closes the learning loop."""
