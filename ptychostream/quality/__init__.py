"""The quality of an image: SSIM, consistency with the patterns, and figures."""
