"""The edge's records and the push of a model to the edge, for the agent."""
