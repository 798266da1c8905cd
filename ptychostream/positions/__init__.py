"""Where each frame was taken: position sources, and the join of frames with positions."""
