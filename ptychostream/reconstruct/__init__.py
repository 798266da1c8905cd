"""Iterative reconstruction (ePIE) on the CPU by numba."""
