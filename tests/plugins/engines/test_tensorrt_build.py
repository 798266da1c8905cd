"""TensorRT where there is no GPU: parsing, building and caching by the real library; running on a simulated device."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from engine_models import counts_of, make_model, make_proto, reference

from ptychostream.errors import EngineError
from ptychostream.plugins.engines import tensorrt_build
from ptychostream.plugins.engines.base import EngineOptions
from ptychostream.plugins.engines.cache import MAGIC
from ptychostream.plugins.engines.graph import streaming_graph
from ptychostream.plugins.engines.half import to_float16
from ptychostream.plugins.engines.tensorrt_build import (
    build_engine,
    engine_key,
    find_module,
    load_tensorrt,
    make_logger,
)

CHIP = "SM120"
needs_builder = pytest.mark.skipif(
    find_module() is None, reason="TensorRT is missing: pip install 'ptychostream[tensorrt-build-test]' (x86-64 Linux)"
)
"""CI installs the extra, so that these tests run there."""


@pytest.fixture(scope="module")
def trt() -> Any:
    return load_tensorrt()


@pytest.mark.slow
@needs_builder
@pytest.mark.parametrize("precision", tensorrt_build.PRECISIONS)
def test_parses_and_builds_without_a_gpu(trt: Any, tmp_path: Path, precision: str) -> None:
    data = build_engine(trt, make_model(tmp_path), 8, precision, compute_capability=CHIP)
    assert len(data) > 1000


@pytest.mark.slow
@needs_builder
def test_half_precision_halves_the_engine(trt: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path, make_proto(width=64))
    sizes = {p: len(build_engine(trt, model, 4, p, compute_capability=CHIP)) for p in ("float16", "float32")}
    weights = 2 * 64 * 64 * 9 * 3  # bytes that half precision saves at the least
    assert sizes["float32"] - sizes["float16"] > weights


@pytest.mark.slow
@needs_builder
def test_foreign_model_builds_with_its_own_batch(trt: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path, make_proto(dose=False, batch=3))
    assert build_engine(trt, model, 3, "float16", compute_capability=CHIP)


@pytest.mark.slow
@needs_builder
def test_the_network_with_a_stem_builds(trt: Any, tmp_path: Path) -> None:
    from ptychostream.benchmarks.inference import random_model

    assert build_engine(trt, random_model("swiftnn", 64, tmp_path), 8, "float16", compute_capability=CHIP)


@needs_builder
def test_an_operator_that_is_refused_is_named(trt: Any, tmp_path: Path) -> None:
    proto = make_proto()
    next(node for node in proto.graph.node if node.op_type == "Tanh").MergeFrom(
        onnx.NodeProto(op_type="Strange", domain="nowhere")
    )
    proto.opset_import.add(domain="nowhere", version=1)
    model = replace(make_model(tmp_path), data=proto.SerializeToString(), parsed=proto)
    with pytest.raises(EngineError, match="Strange"):
        build_engine(trt, model, 8, "float16", compute_capability=CHIP)


@pytest.mark.slow
@needs_builder
def test_key_differs_by_model_precision_batch_and_device(trt: Any, tmp_path: Path) -> None:
    model, other = make_model(tmp_path), make_model(tmp_path, make_proto(width=24), name="other")
    keys = [
        engine_key(trt, which, chunk, precision, device)
        for which, chunk, precision, device in [
            (model, 8, "float16", "A, SM86"),
            (other, 8, "float16", "A, SM86"),
            (model, 4, "float16", "A, SM86"),
            (model, 8, "tf32", "A, SM86"),
            (model, 8, "float16", "B, SM87"),
        ]
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == engine_key(trt, model, 8, "float16", "A, SM86")


@needs_builder
def test_the_running_half_calls_an_api_that_exists(trt: Any) -> None:
    logger = make_logger(trt)
    assert hasattr(trt.Runtime, "deserialize_cuda_engine")
    assert callable(logger.log)
    for name in ("num_io_tensors", "get_tensor_name", "get_tensor_shape", "create_execution_context"):
        assert hasattr(trt.ICudaEngine, name)
    for name in ("set_tensor_address", "execute_async_v3"):
        assert hasattr(trt.IExecutionContext, name)


@needs_builder
def test_errors_of_the_builder_are_kept(trt: Any) -> None:
    logger = make_logger(trt)
    logger.log(trt.ILogger.Severity.ERROR, "it broke")
    logger.log(trt.ILogger.Severity.INFO, "it works")
    assert logger.errors == ["it broke"]


def test_no_tensorrt_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "MODULES", ("no_such_tensorrt",))
    with pytest.raises(EngineError, match="JetPack"):
        load_tensorrt()


def test_an_empty_tensorrt_package_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "MODULES", ("json",))
    with pytest.raises(EngineError, match="empty shell"):
        load_tensorrt()


@pytest.mark.slow
def test_float16_graph_computes_the_same(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    proto = streaming_graph(model, 4)
    to_float16(proto)
    onnx.checker.check_model(proto, full_check=True)
    kinds = {t.name: t.data_type for t in proto.graph.initializer}
    weights = [node.input[1] for node in proto.graph.node if node.op_type == "Conv"]
    assert all(kinds[name] == onnx.TensorProto.FLOAT16 for name in weights)
    counts = counts_of(4) * 100  # far beyond what float16 counts could hold exactly
    expected = reference(make_proto(), counts, 30.0)
    got = reference(proto, counts, 30.0)
    assert got.dtype == np.float32
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.01


class Device:
    """A GPU made of numpy, with the part of pycuda.driver and TensorRT that the running half uses.

    Every call notes its thread, as PyCUDA's contexts would insist on.
    """

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.contexts = 0
        self.blocks = 0
        self.refuse: list[bytes] = []

    def here(self) -> None:
        self.threads.add(threading.get_ident())

    def driver(self) -> Any:
        here, gpu = self.here, self

        class Error(Exception):
            pass

        class Context:
            def pop(self) -> None:
                here()
                gpu.contexts -= 1

            def detach(self) -> None:
                here()

        class Chip:
            def __init__(self, _index: int) -> None:
                here()

            def make_context(self) -> Context:
                here()
                gpu.contexts += 1
                return Context()

            def compute_capability(self) -> tuple[int, int]:
                return 8, 7

            def name(self) -> str:
                return "Numpy"

        class Block:
            def __init__(self, size: int) -> None:
                here()
                gpu.blocks += 1
                self.memory = np.zeros(size // 4, np.float32)

            def __int__(self) -> int:
                return int(self.memory.ctypes.data)

            def free(self) -> None:
                here()
                gpu.blocks -= 1

        class Stream:
            handle = 1

            def synchronize(self) -> None:
                here()

        def to_device(block: Block, array: Any, stream: Stream) -> None:
            here()
            block.memory[:] = array.ravel()

        def to_host(array: Any, block: Block, stream: Stream) -> None:
            here()
            array[...] = block.memory.reshape(array.shape)

        return SimpleNamespace(
            Error=Error, init=here, Device=Chip, Stream=Stream, mem_alloc=Block, pagelocked_empty=np.empty,
            memcpy_htod_async=to_device, memcpy_dtoh_async=to_host,
        )  # fmt: skip

    def tensorrt(self) -> Any:
        here, gpu = self.here, self

        class Execution:
            def __init__(self, data: bytes) -> None:
                self.session = onnxruntime.InferenceSession(data)
                self.addresses: dict[str, int] = {}

            def set_tensor_address(self, name: str, address: int) -> None:
                here()
                self.addresses[name] = address

            def execute_async_v3(self, _handle: int) -> bool:
                here()
                memory = {
                    port.name: np.ctypeslib.as_array(
                        ctypes.cast(self.addresses[port.name], ctypes.POINTER(ctypes.c_float)), tuple(port.shape)
                    )
                    for port in [*self.session.get_inputs(), *self.session.get_outputs()]
                }
                feeds = {port.name: memory[port.name] for port in self.session.get_inputs()}
                memory["phase"][...] = self.session.run(["phase"], feeds)[0]
                return True

        class Engine:
            def __init__(self, data: bytes) -> None:
                here()
                self.execution = Execution(data)
                session = self.execution.session
                self.ports = [*session.get_inputs(), *session.get_outputs()]
                self.num_io_tensors = len(self.ports)

            def get_tensor_name(self, index: int) -> str:
                return str(self.ports[index].name)

            def get_tensor_shape(self, name: str) -> tuple[int, ...]:
                return tuple(next(port.shape for port in self.ports if port.name == name))

            def create_execution_context(self) -> Execution:
                here()
                return self.execution

        class Runtime:
            def __init__(self, _logger: Any) -> None:
                here()

            def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
                here()
                return None if data in gpu.refuse else Engine(data)

        severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)

        class ILogger:
            Severity = severity

        return SimpleNamespace(Runtime=Runtime, ILogger=ILogger, __version__="0.0", __name__="tensorrt")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Any:
    """TensorRtEngine on a `Device`; "building" gives the graph itself, which the device runs by ONNX Runtime."""
    device = Device()
    driver = device.driver()
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    name = "ptychostream.plugins.engines.tensorrt_engine"
    sys.modules.pop(name, None)
    module = importlib.import_module(name)
    monkeypatch.setattr(module, "load_tensorrt", device.tensorrt)

    def build(trt: Any, model: Any, chunk: int, precision: str, *, logger: Any = None) -> bytes:
        device.here()
        return streaming_graph(model, chunk).SerializeToString()

    monkeypatch.setattr(module, "build_engine", build)
    device.create = lambda model, **options: module.TensorRtEngine(model, EngineOptions(**options))
    yield device
    sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.parametrize("fixed", [None, 3])
def test_the_running_half_lives_in_one_thread(device: Any, tmp_path: Path, fixed: int | None) -> None:
    model = make_model(tmp_path, make_proto(batch=fixed))
    counts = counts_of(8)
    alone = np.concatenate([reference(make_proto(), counts[i : i + 1], 2.0) for i in range(8)])

    def elsewhere(call: Callable[[], Any]) -> Any:
        """In a thread of its own, while the earlier callers' threads still live."""
        return callers.enter_context(ThreadPoolExecutor(1)).submit(call).result()

    with ExitStack() as callers:
        engine = elsewhere(lambda: device.create(model, batch=8, cache_dir=tmp_path))
        for order in ([0, 1, 2, 3, 4, 5, 6, 7], [5], [7, 0, 2, 1]):
            phase = elsewhere(lambda order=order: engine.infer(counts[order], 2.0).copy())
            np.testing.assert_allclose(phase, alone[order], atol=1e-5)
        elsewhere(engine.close)
    assert engine.device == "Numpy, SM87"
    assert engine.precision == "float16"
    assert len(device.threads) == 1
    assert device.threads != {threading.get_ident()}
    assert (device.contexts, device.blocks) == (0, 0)
    with pytest.raises(EngineError, match="closed"):
        engine.infer(counts)


def test_an_engine_that_tensorrt_refuses_is_built_again_once(device: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path)
    cache = tmp_path / "cache"
    device.create(model, batch=4, cache_dir=cache).close()
    (path,) = cache.iterdir()
    good = path.read_bytes()
    head = len(MAGIC) + 32
    path.write_bytes(MAGIC + hashlib.sha256(b"old").digest() + b"old")
    device.refuse = [b"old"]
    device.create(model, batch=4, cache_dir=cache).close()
    assert path.read_bytes() == good
    device.refuse = [b"old", good[head:]]
    with pytest.raises(EngineError, match="cannot be loaded"):
        device.create(model, batch=4, cache_dir=cache)
    assert device.contexts == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("tensorrt")]
