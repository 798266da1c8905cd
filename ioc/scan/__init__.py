"""What the IOC subscribes to: frames, positions, scan PVs."""
