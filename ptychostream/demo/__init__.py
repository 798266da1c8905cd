"""The demonstration. It starts the real processes and reads their records like any other client."""
