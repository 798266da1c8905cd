"""What the agent has done and decided, in SQLite."""
