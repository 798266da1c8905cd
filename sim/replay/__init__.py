"""Frames and positions served over PV Access: simulated, replayed, or raw."""
