"""The HPC agent: it reconstructs scans, trains networks, and sends models to the edge."""
