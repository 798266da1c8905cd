"""PV Access through p4p: channels read, updates decoded, images built. Never imported by the agent."""
