"""Runs each step in its own process, on this machine or through Parsl."""
