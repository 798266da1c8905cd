"""The name under which agents before version 0.2 send their steps to Parsl's workers."""

from __future__ import annotations

from ptychostream.hpc_agent.running.parsl_step import run_on_node

__all__ = ["run_on_node"]
