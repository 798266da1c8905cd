"""Which reconstruction engine to take: ePIE by numba, torch or pty-chi."""

from __future__ import annotations

import importlib.util

from ptychostream.errors import ReconstructionError
from ptychostream.reconstruct import fft_kernels
from ptychostream.reconstruct.engines import Engine, Problem, epie_engine, near_field_refused
from ptychostream.reconstruct.options import ReconstructOptions


def create_engine(problem: Problem, options: ReconstructOptions) -> Engine:
    """The engine that `options` name; see `ReconstructOptions` for what "auto" takes.

    Raises
    ------
    ReconstructionError
        When the engine or the device is not there, or cannot take frames of this size.
    """
    size = problem.probe.shape[-1]
    name, device = options.engine, _device(options)
    if name == "auto":
        plain = fft_kernels.supports(size) and problem.transfer is None
        gpu = device != "cpu" and options.correct_positions == "none" and not options.momentum
        name = "epie" if plain and not gpu else "torch"
    if name == "epie":
        return epie_engine(problem, options)
    if options.correct_positions != "none":
        raise ReconstructionError(
            f"the {name} engine corrects no positions",
            where="--correct-positions",
            remedy="take --engine epie, and crop the frames to a size that it takes"
            if name == "torch"
            else "take --engine epie",
        )
    if options.momentum:
        raise ReconstructionError(
            f"the {name} engine has no momentum", where="--momentum", remedy="take --engine epie, or no momentum"
        )
    if name == "torch":
        _need("torch", "--engine torch", "pip install 'ptychostream[hpc]'")
        from ptychostream.hpc_agent.reconstruct.torch_engine import TorchEngine

        return TorchEngine(problem, options, device)
    if problem.transfer is not None:
        raise near_field_refused("ptychi")
    _need("ptychi", "--engine ptychi", "pip install ptychi")
    from ptychostream.hpc_agent.reconstruct.ptychi_engine import PtychiEngine

    return PtychiEngine(problem, options, device)


def _need(module: str, where: str, remedy: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ReconstructionError(f"{module} is not installed", where=where, remedy=remedy)


def _device(options: ReconstructOptions) -> str:
    if options.device == "cpu" or options.engine == "epie":
        if options.device.startswith("cuda"):
            raise ReconstructionError(
                "the epie engine runs on the CPU", where="--device", remedy="take --engine torch for CUDA"
            )
        return "cpu"
    if importlib.util.find_spec("torch") is None:
        found = False
    else:
        import torch

        found = torch.cuda.is_available()
    if found:
        return "cuda" if options.device == "auto" else options.device
    if options.device == "auto":
        return "cpu"
    raise ReconstructionError(
        "no CUDA device that torch can use",
        where="--device",
        remedy="take --device cpu, or install a CUDA build of torch",
    )
