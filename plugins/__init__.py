"""The streaming inference plugin: receive, join, batch, infer, stitch."""
