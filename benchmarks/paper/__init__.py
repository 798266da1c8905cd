"""The results of Babu et al. 2023 (Nat. Commun. 14, 7059) on a simulated beamline: `ptychostream reproduce`."""
