"""Position sources, and the join of frames with their positions."""
