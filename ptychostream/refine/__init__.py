"""Iterative refinement of the live phase: frames as they come, from the network's phase, within a budget."""
