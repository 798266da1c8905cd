"""Ptychographic reconstruction behind one interface."""

from ptychostream.hpc_agent.reconstruct.options import ReconstructOptions
from ptychostream.hpc_agent.reconstruct.run import reconstruct

__all__ = ["ReconstructOptions", "reconstruct"]
