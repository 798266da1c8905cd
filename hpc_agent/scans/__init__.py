"""Scans as they complete: watched, checked, collected."""
