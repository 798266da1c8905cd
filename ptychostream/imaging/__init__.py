"""From patches to one image: geometry, stitching, registration."""
