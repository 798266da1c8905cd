"""The model slot: loading, checking, comparing, rolling back."""
