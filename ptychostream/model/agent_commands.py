"""What an operator can ask of the agent at the edge."""

from __future__ import annotations

COMMANDS = ("reconstruct", "retrain")
"""Command X is the records Agent:X, Agent:XAsked_RBV (number of the newest that was asked for) and Agent:XDone."""
