"""Real-time streaming ptychography at an EPICS beamline: the shared library."""

__version__ = "0.1.0"
