"""Readers of the 4D-STEM files of electron microscopes, one module each, and what their axes mean."""
