"""Torch on a CPU, or on a CUDA device with one CUDA graph for the batch."""

from __future__ import annotations

from typing import Any

import torch

from ptychostream.errors import EngineError
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines.base import BatchedEngine, EngineOptions
from ptychostream.plugins.engines.graph import streaming_graph
from ptychostream.plugins.engines.torch_import import OnnxModule
from ptychostream.processes.hardware import cores, cpu_name, has_bfloat16

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
WARM_UP = 3


class TorchEngine(BatchedEngine):
    """Torch on the CPU. Convolutions are in channels-last order, and in bfloat16 if the processor has it."""

    name = "Torch"
    supported: tuple[str, ...] = ("bfloat16", "float32")

    def __init__(self, model: ModelFile, options: EngineOptions) -> None:
        super().__init__(model, options)
        self.version = str(torch.__version__)
        self.precision = self.choose_precision(options.precision, self._automatic())
        self._module: OnnxModule | None = OnnxModule(
            streaming_graph(model, self._chunk), list(model.inputs), DTYPES[self.precision], self._where
        ).eval()
        if options.threads:
            torch.set_num_threads(options.threads)  # for the whole process; torch has no smaller scope
        self._start()

    def _automatic(self) -> str:
        return "bfloat16" if has_bfloat16() else "float32"

    def _start(self) -> None:
        self.device = f"{torch.get_num_threads()} of {cores()} cores, {cpu_name()}"
        self._host_counts = torch.from_numpy(self._counts)
        self._host_phase = torch.from_numpy(self._phase)
        self._host_dose = torch.from_numpy(self._dose)
        self._run(1)

    @torch.inference_mode()
    def _run(self, runs: int) -> None:
        for frames in self._chunks(runs):
            self._host_phase[frames].copy_(self._forward(self._host_counts[frames], self._host_dose))

    def _forward(self, counts: torch.Tensor, dose: torch.Tensor) -> torch.Tensor:
        if self._module is None:
            raise EngineError("the engine is closed", where=self._where, remedy="create it again")
        inputs = (counts,) if self._dose_input is None else (counts, dose)
        phase: torch.Tensor = self._module(*inputs)
        return phase

    def _release(self) -> None:
        self._module = None


class TorchCudaEngine(TorchEngine):
    """Torch on a CUDA device: copy in, launch one graph, copy out. Python launches no kernel while it runs."""

    name = "TorchCUDA"
    supported = ("float16", "bfloat16", "tf32", "float32")

    def _automatic(self) -> str:
        return "float16"

    def _start(self) -> None:
        if not torch.cuda.is_available():
            remedy = "install a torch built for this machine's CUDA driver, or choose another engine"
            raise EngineError("torch finds no CUDA device", where=self._where, remedy=remedy)
        device = torch.device("cuda", torch.cuda.current_device())
        self.device = torch.cuda.get_device_name(device)
        assert self._module is not None
        self._module.to(device)
        # Page-locked, so that copies run in parallel to the host. numpy writes to views of the same memory.
        self._host_counts = torch.zeros(self._counts.shape, pin_memory=True)
        self._host_phase = torch.zeros(self._phase.shape, pin_memory=True)
        self._host_dose = torch.ones(self._dose.shape, pin_memory=True)
        self._counts = self._host_counts.numpy()
        self._phase = self._host_phase.numpy()
        self._dose = self._host_dose.numpy()
        first = slice(0, self._chunk)
        self._device_counts = torch.zeros_like(self._host_counts[first], device=device)
        self._device_dose = torch.ones_like(self._host_dose, device=device)
        self._stream: Any = torch.cuda.Stream(device)
        try:
            self._capture()
        except RuntimeError as error:
            what = f"the model cannot be captured: {str(error).splitlines()[0]}"
            raise EngineError(what, where=self._where, remedy="choose another engine") from error

    @torch.inference_mode()
    def _capture(self) -> None:
        tf32 = self.precision == "tf32"
        with (
            torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=True, allow_tf32=tf32),
            torch.cuda.stream(self._stream),
        ):
            for _ in range(WARM_UP):  # cuDNN chooses its kernels, the allocator its blocks
                self._forward(self._device_counts, self._device_dose)
            self._stream.synchronize()
            self._cuda_graph: Any = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._cuda_graph, stream=self._stream):
                self._device_phase = self._forward(self._device_counts, self._device_dose).float()

    @torch.inference_mode()
    def _run(self, runs: int) -> None:
        with torch.cuda.stream(self._stream):
            self._device_dose.copy_(self._host_dose, non_blocking=True)
            for frames in self._chunks(runs):
                self._device_counts.copy_(self._host_counts[frames], non_blocking=True)
                self._cuda_graph.replay()
                self._host_phase[frames].copy_(self._device_phase, non_blocking=True)
        self._stream.synchronize()

    def _release(self) -> None:
        super()._release()
        self._cuda_graph = self._device_counts = self._device_phase = self._stream = None
