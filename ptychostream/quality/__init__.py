"""How good an image is: SSIM, consistency with the patterns, figures."""
