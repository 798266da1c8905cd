"""The model file and its contract: what both sides of a push agree on."""
