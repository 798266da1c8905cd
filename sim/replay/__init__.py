"""Frames and positions served over PV Access: simulated, replayed, or raw."""

# Before p4p and softioc: a process that imports pvaccess after their EPICS libraries may crash when it ends.
import pvaccess  # noqa: F401
