"""Find the engines that can run on this machine. Modules are searched but not loaded."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ptychostream.plugins.engines.base import EngineStatus
from ptychostream.plugins.engines.tensorrt_build import find_module
from ptychostream.processes.hardware import cpu_name, has_bfloat16, has_nvidia_gpu

NO_GPU = "no NVIDIA GPU here"


@dataclass(frozen=True)
class Candidate:
    """An engine: its name, its implementation, and the function that checks whether it is available."""

    name: str
    module: str
    kind: str
    probe: Callable[[str], EngineStatus]


def probe_engines() -> list[EngineStatus]:
    """The status of all engines that need a model, the fastest first."""
    return [candidate.probe(candidate.name) for candidate in candidates()]


def candidates() -> list[Candidate]:
    """The engines, the fastest first. CPU engines stand in the order that docs/reference/engines.md measures."""
    onnx_runtime = Candidate("ONNXRuntime", "onnxruntime_engine", "OnnxRuntimeEngine", _probe_onnxruntime)
    openvino = Candidate("OpenVINO", "openvino_engine", "OpenVinoEngine", _probe_openvino)
    by_gpu = has_nvidia_gpu() and _onnxruntime_gpu()
    return [
        Candidate("TensorRT", "tensorrt_engine", "TensorRtEngine", _probe_tensorrt),
        Candidate("TorchCUDA", "torch_engine", "TorchCudaEngine", _probe_torch_cuda),
        *((onnx_runtime, openvino) if by_gpu else (openvino, onnx_runtime)),
        Candidate("Torch", "torch_engine", "TorchEngine", _probe_torch),
    ]


def _missing(name: str, module: str, remedy: str) -> EngineStatus:
    return EngineStatus(name, False, f"module {module} is not installed: {remedy}")


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _cpu() -> str:
    return f"{cpu_name()}, {'bfloat16 in hardware' if has_bfloat16() else 'no bfloat16 in hardware'}"


def _probe_tensorrt(name: str) -> EngineStatus:
    module = find_module()
    if module is None:
        return _missing(name, "tensorrt", "it comes with JetPack on a Jetson, from NVIDIA elsewhere")
    if not has_nvidia_gpu():
        return EngineStatus(name, False, f"module {module} is installed, but {NO_GPU}")
    if not _installed("pycuda"):
        return _missing(name, "pycuda", "pip install pycuda")
    return EngineStatus(name, True, f"module {module} and an NVIDIA GPU are here", "NVIDIA GPU")


def _probe_torch_cuda(name: str) -> EngineStatus:
    if not _installed("torch"):
        return _missing(name, "torch", "pip install 'ptychostream[hpc]'")
    if not has_nvidia_gpu():
        return EngineStatus(name, False, NO_GPU)
    if not _torch_has_cuda():
        return EngineStatus(name, False, "this torch is built without CUDA: install one with it")
    return EngineStatus(name, True, "torch with CUDA and an NVIDIA GPU are here", "NVIDIA GPU")


def _probe_openvino(name: str) -> EngineStatus:
    if not _installed("openvino"):
        return _missing(name, "openvino", "pip install 'ptychostream[edge]'")
    return EngineStatus(name, True, f"module openvino is installed; {_cpu()}", "CPU")


def _probe_onnxruntime(name: str) -> EngineStatus:
    if not _installed("onnxruntime"):
        return _missing(name, "onnxruntime", "pip install 'ptychostream[edge]'")
    if has_nvidia_gpu() and _onnxruntime_gpu():
        return EngineStatus(
            name, True, "module onnxruntime with its CUDA provider and an NVIDIA GPU are here", "NVIDIA GPU"
        )
    return EngineStatus(name, True, f"module onnxruntime is installed; {_cpu()}", "CPU")


def _probe_torch(name: str) -> EngineStatus:
    if not _installed("torch"):
        return _missing(name, "torch", "pip install 'ptychostream[hpc]'")
    return EngineStatus(name, True, f"module torch is installed; {_cpu()}", "CPU")


def _package_folder(module: str) -> Path | None:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _torch_has_cuda() -> bool:
    """Whether torch is built with CUDA. Its version file tells; it is read without loading torch."""
    folder = _package_folder("torch")
    version = folder / "version.py" if folder is not None else None
    if version is None or not version.is_file():
        return False
    return re.search(r"^cuda\b.*=\s*['\"]", version.read_text(encoding="utf-8"), re.MULTILINE) is not None


def _onnxruntime_gpu() -> bool:
    folder = _package_folder("onnxruntime")
    return folder is not None and any((folder / "capi").glob("*onnxruntime_providers_cuda*"))
