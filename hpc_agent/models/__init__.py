"""The store of trained models."""
