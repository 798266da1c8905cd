"""A model is built and run in a child process before it is used."""
