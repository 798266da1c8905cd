"""Adaptive scans on simulated samples, beside full scans and evenly sparse ones."""
