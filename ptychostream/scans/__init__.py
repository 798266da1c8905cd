"""Scans: read, write, record and fetch scan files."""
