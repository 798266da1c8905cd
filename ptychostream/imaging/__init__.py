"""Geometry, stitching of patches to one image, and registration of images."""
