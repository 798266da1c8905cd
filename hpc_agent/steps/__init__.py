"""The heavy steps, a module each; `python -m ptychostream.hpc_agent.steps NAME`."""
