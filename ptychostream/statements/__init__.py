"""What a source says of its frames: statements with their units and places, and contradictions between them."""
