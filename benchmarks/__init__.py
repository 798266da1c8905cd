"""The measurements behind `ptychostream bench`."""
