"""The simulated beamline: sample, probe, scan, detector and replay."""
