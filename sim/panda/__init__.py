"""A simulated PandABox: the two ports that a real one serves."""
