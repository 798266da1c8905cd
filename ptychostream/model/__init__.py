"""The model file, its contract, its preprocessing, and the protocol of a push."""
