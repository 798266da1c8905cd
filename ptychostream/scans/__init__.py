"""Scan files: read, written, recorded, fetched."""
