"""Scans and reconstructions written, and products read, in the files of other programs, one module each."""
