"""The simulated beamline: sample, probe, scan, detector, record and replay."""
