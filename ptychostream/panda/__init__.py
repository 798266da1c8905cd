"""A PandABox, read as a source of positions by trigger index."""
