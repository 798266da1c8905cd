"""The edge as the agent sees it: its records, and the push of a model."""
