"""The journal of the agent in SQLite, and the policy that decides what the agent does."""
