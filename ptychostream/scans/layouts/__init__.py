"""Readers of the layouts of other programs, one module each. `ptychostream.scans.scan_files` loads them by name."""
