"""Child processes, stopping, priority and ports."""
