"""How right the error of the stitched phase is: `ptychostream bench sigma`."""
