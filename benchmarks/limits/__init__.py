"""Hostile and broken input at every door: what it costs, and what is said."""
