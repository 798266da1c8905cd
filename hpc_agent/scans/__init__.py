"""Finds completed scans, checks them, and gives their files."""
