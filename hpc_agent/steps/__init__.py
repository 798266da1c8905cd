"""The heavy steps, one module each; `python -m ptychostream.hpc_agent.steps NAME`."""
