"""Model files: one ONNX file that contains its contract. It is checked when read, and written atomically."""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import numpy_helper

from ptychostream.errors import ModelError
from ptychostream.frames.measured_pixels import INVERTED, mask_fault
from ptychostream.model.admitted import check_graph, check_sizes, tensors
from ptychostream.model.contract import CONTRACT_KEY, GoldenPair, ModelContract
from ptychostream.model.shown import shown
from ptychostream.storage.atomic import write_bytes_atomic

MAX_BYTES = 256 * 1024 * 1024
OPSETS = range(11, 22)
"""Opset 11 introduced the Resize that PtychoNN uses. 21 is the newest opset that every engine reads."""
MAX_FRAME_PIXELS = 1 << 26
"""The largest raw frame, input and patch. A larger one is a mistake, and memory would be allocated for it."""
MAX_GOLDEN_PIXELS = 1 << 24
"""The largest number of pixels in all frames of a golden pair; they are inferred whenever the model is loaded."""
MAX_NAME = 200
"""The longest name of a model."""
MAX_PROBE_PIXELS = 1 << 22
"""The largest number of pixels in all modes of a contract's probe, 32 MiB."""
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)

Infer = Callable[[NDArray[np.float32], float], NDArray[np.float32]]
"""(counts [n, H, W], dose_scale) → phase [n, h, w] rad. The type of an engine's `infer`."""


@dataclass(frozen=True)
class ModelFile:
    """A model that has passed all checks that need no engine.

    Attributes
    ----------
    path
        The file's path.
    data
        The ONNX file's bytes.
    sha256
        SHA-256 of `data`, hexadecimal.
    contract
        The contract from the file's metadata or its sidecar.
    opset
        Opset of the default operator domain.
    counts_input, phase_output
        Names in the graph.
    parsed
        `data` as parsed; copy it before you change it.
    dose_input, amplitude_output
        Names in the graph, or None.
    dose_shape
        Shape of the dose input, () or (1,).
    fixed_batch
        The graph's fixed batch size. None if its batch axis is dynamic.
    """

    path: Path
    data: bytes
    sha256: str
    contract: ModelContract
    opset: int
    counts_input: str
    phase_output: str
    parsed: onnx.ModelProto = field(repr=False, compare=False)
    dose_input: str | None = None
    dose_shape: tuple[int, ...] = ()
    amplitude_output: str | None = None
    fixed_batch: int | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs, counts first."""
        return (self.counts_input,) if self.dose_input is None else (self.counts_input, self.dose_input)

    @property
    def has_dose_scale(self) -> bool:
        """Whether the graph scales the counts. If not, the caller must scale them."""
        return self.dose_input is not None


def load_model(path: str | Path, max_bytes: int = MAX_BYTES, sidecar: bool = True) -> ModelFile:
    """Read and check a model file.

    Parameters
    ----------
    path
        An ONNX file.
    max_bytes
        Larger files are refused before they are read.
    sidecar
        Whether the contract may come from `<name>.json` beside the file, if the file has none.

    Raises
    ------
    ModelError
        The file cannot be read, is no ONNX model, cannot run in a streaming engine or has weights that are not finite;
        or its contract is absent, invalid or contradicts the graph.
    """
    data, text = read_model(Path(path), max_bytes, sidecar)
    return parse_model(data, Path(path), text)


def read_model(path: Path, max_bytes: int = MAX_BYTES, sidecar: bool = True) -> tuple[bytes, bytes | None]:
    """The bytes of a model file, and of the contract beside it where the file has none. See `load_model`.

    Raises
    ------
    ModelError
        A file cannot be read, is empty or too large.
    """
    data = read_model_bytes(path, max_bytes)
    beside = path.with_suffix(".json")
    needed = sidecar and CONTRACT_KEY.encode() not in data
    return data, read_model_bytes(beside, max_bytes) if needed and beside.is_file() else None


def parse_model(data: bytes, path: Path, sidecar: bytes | None = None, sha256: str = "") -> ModelFile:
    """Check the bytes of a model file, as `load_model` does.

    Parameters
    ----------
    data
        The file's bytes.
    path
        Named in errors and kept in the result; it is not read.
    sidecar
        A contract as JSON, used where `data` holds none.
    sha256
        Of `data`, where the caller has computed it already; empty: it is computed here.

    Raises
    ------
    ModelError
        See `load_model`.
    """
    where = str(path)
    model, opset = _parse_onnx(data, where)
    _check_weights(model, where)
    contract = _contract(model, path, sidecar)
    counts, dose = _inputs(model, where)
    phase, amplitude = _outputs(model, where)
    batch = _check_shape(counts, contract.input_shape, where)
    _check_shape(phase, contract.output_shape, where)
    return ModelFile(
        path=path,
        data=data,
        sha256=sha256 or hashlib.sha256(data).hexdigest(),
        contract=contract,
        opset=opset,
        counts_input=counts.name,
        phase_output=phase.name,
        parsed=model,
        dose_input=None if dose is None else dose.name,
        dose_shape=() if dose is None else tuple(1 for _ in dose.type.tensor_type.shape.dim),
        amplitude_output=amplitude,
        fixed_batch=batch,
    )


def check_golden(contract: ModelContract, infer: Infer) -> float:
    """Run the golden pair through `infer`, frame by frame, so that every batch size works.

    Returns
    -------
    float
        Root mean square difference, rad. 0.0 if the contract has no golden pair.

    Raises
    ------
    ModelError
        The difference exceeds the pair's tolerance, or the output has another shape or is not finite.
    """
    if contract.golden is None:
        return 0.0
    where = f"golden pair of {contract.name}"
    remedy = "the engine runs this model wrongly, or the file was changed: try another engine, or export again"
    expected = contract.golden.phase.unpack().astype(np.float32)
    counts = contract.golden.counts.unpack().astype(np.float32)
    # Copied, because an engine may return a view of its own buffer.
    phase = np.concatenate([infer(counts[i : i + 1], contract.golden.dose_scale).copy() for i in range(len(counts))])
    if phase.shape != expected.shape:
        raise ModelError(f"output has shape {phase.shape}, not {expected.shape}", where=where, remedy=remedy)
    rms = float(np.sqrt(np.mean(np.square(phase.astype(np.float64) - expected))))
    if not rms <= contract.golden.tolerance:
        what = f"output differs by {rms:.3g} rad rms, tolerance {contract.golden.tolerance:.3g} rad"
        raise ModelError(what, where=where, remedy=remedy)
    return rms


def write_model(path: str | Path, model: onnx.ModelProto, contract: ModelContract) -> str:
    """Write `model` atomically with `contract` in its metadata. Returns the file's sha256.

    Raises
    ------
    ModelError
        `load_model` would refuse the model (nothing is written then), or the file cannot be written.
    """
    data = with_contract(model, contract)
    checked = parse_model(data, Path(path))
    try:
        write_bytes_atomic(path, data)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise ModelError(what, where=str(path), remedy="give a folder that exists and has room") from error
    return checked.sha256


def with_contract(model: onnx.ModelProto, contract: ModelContract) -> bytes:
    """The bytes of a model file: `model`, with `contract` as its only metadata."""
    del model.metadata_props[:]
    model.metadata_props.add(key=CONTRACT_KEY, value=contract.to_json())
    data: bytes = model.SerializeToString()
    return data


def read_model_bytes(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a model file. Raises ModelError if it is no file, too large, or cannot be read."""
    where = str(path)
    try:
        kind, size = path.stat().st_mode, path.stat().st_size
        if not stat.S_ISREG(kind):  # opening a pipe can wait for ever
            raise ModelError("not a file", where=where, remedy="give an ONNX file")
        if size > max_bytes:
            what = f"{size:,} bytes are more than the limit of {max_bytes:,}"
            raise ModelError(what, where=where, remedy="give a PtychoNN model, or raise the limit")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelError(error.strerror or str(error), where=where, remedy="give an ONNX file that exists") from error
    if not data:
        raise ModelError("file of 0 bytes", where=where, remedy="copy or export the model again")
    if len(data) > max_bytes:
        raise ModelError(
            "the file grew larger than the limit while it was read", where=where, remedy="let its writer finish"
        )
    return data


def _parse_onnx(data: bytes, where: str) -> tuple[onnx.ModelProto, int]:
    """The model and its opset."""
    remedy = "export the model again, as one ONNX file"
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError("not an ONNX model", where=where, remedy=remedy) from error
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), None)
    if opset is None or not model.graph.node:
        raise ModelError("not an ONNX model: no graph, or no opset", where=where, remedy=remedy)
    if opset not in OPSETS:
        what = f"opset {opset} is outside {OPSETS.start} to {OPSETS.stop - 1}"
        raise ModelError(what, where=where, remedy="export the model with opset 17")
    check_graph(model, where)
    try:
        onnx.checker.check_model(data)
        inferred = onnx.shape_inference.infer_shapes(data, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        what = f"not a valid ONNX model: {str(error).strip().splitlines()[0]}"
        raise ModelError(what, where=where, remedy=remedy) from error
    check_sizes(inferred.graph, where)
    return model, int(opset)


def _check_weights(model: onnx.ModelProto, where: str) -> None:
    for tensor in tensors(model.graph):
        if tensor.data_type in FLOATS and not np.isfinite(numpy_helper.to_array(tensor).astype(np.float64)).all():
            what = f"weights {tensor.name!r} are not finite"
            raise ModelError(what, where=where, remedy="its training diverged: train again with a lower learning rate")


def _contract(model: onnx.ModelProto, path: Path, sidecar: bytes | None) -> ModelContract:
    text: str | bytes | None = next((p.value for p in model.metadata_props if p.key == CONTRACT_KEY), None)
    where = str(path)
    if text is None:
        if sidecar is None:
            remedy = f"write its contract to {path.with_suffix('.json').name} beside it"
            raise ModelError("the file holds no model contract", where=where, remedy=remedy)
        text, where = sidecar, str(path.with_suffix(".json"))
    contract = ModelContract.from_json(text, where)
    _check_contract(contract, where)
    return contract


def _check_contract(contract: ModelContract, where: str) -> None:
    """Check that the contract's shapes fit together, which its types cannot express."""
    remedy = "correct the contract, or export the model again"
    if not contract.name.isprintable() or len(contract.name) > MAX_NAME:
        what = f"name {shown(contract.name)} has characters that are not printable, or more than {MAX_NAME}"
        raise ModelError(what, where=where, remedy=remedy)
    if min(*contract.input_shape, *contract.output_shape) < 1:
        raise ModelError("input_shape and output_shape must be positive", where=where, remedy=remedy)
    preprocessing = contract.preprocessing
    raw = math.prod(contract.input_shape) * preprocessing.bin**2
    if max(raw, math.prod(contract.output_shape)) > MAX_FRAME_PIXELS:
        what = f"frames or patches of more than {MAX_FRAME_PIXELS:,} pixels"
        raise ModelError(what, where=where, remedy=remedy)
    if preprocessing.crop is not None:
        row0, column0, rows, columns = preprocessing.crop
        if min(preprocessing.crop) < 0 or (row0 + rows) * (column0 + columns) > MAX_FRAME_PIXELS:
            raise ModelError(f"preprocessing crops to {preprocessing.crop}", where=where, remedy=remedy)
        height, width = (side // preprocessing.bin for side in preprocessing.crop[2:])
        if preprocessing.rot90 % 2:
            height, width = width, height
        if (height, width) != contract.input_shape:
            what = f"preprocessing gives {height}×{width}, input_shape says {contract.input_shape}"
            raise ModelError(what, where=where, remedy=remedy)
    if preprocessing.bad_pixels is not None:
        mask = preprocessing.bad_pixels.unpack()
        if mask.ndim != 2 or not 0 < mask.size <= MAX_FRAME_PIXELS or mask.dtype.kind == "c":
            what = f"bad_pixels of {mask.shape} {mask.dtype} is not a mask of a raw frame"
            raise ModelError(what, where=where, remedy=remedy)
        fault = mask_fault(mask.astype(np.bool_))
        if fault:
            raise ModelError(fault, where=f"{where}, bad_pixels", remedy=INVERTED)
    if contract.patch_weight is not None:
        weight = contract.patch_weight.unpack()
        good = weight.shape == contract.output_shape and weight.dtype.kind in "iuf" and np.isfinite(weight).all()
        if not good or weight.min() < 0 or not weight.any():
            what = "patch_weight must be finite, not negative, not all zero, of output_shape"
            raise ModelError(what, where=where, remedy=remedy)
    if contract.probe is not None:
        probe = contract.probe.unpack()
        good = probe.dtype == np.complex64 and probe.ndim == 3 and 0 < probe.size <= MAX_PROBE_PIXELS
        if not good or not np.isfinite(probe).all() or not probe.any():
            what = f"probe must be finite, not all zero, complex64 [modes, N, M], up to {MAX_PROBE_PIXELS:,} pixels"
            raise ModelError(what, where=where, remedy=remedy)
    if contract.golden is not None:
        _check_golden_shapes(contract, contract.golden, where)


def _check_golden_shapes(contract: ModelContract, golden: GoldenPair, where: str) -> None:
    counts, phase = golden.counts.unpack(), golden.phase.unpack()
    good = (
        counts.dtype.kind in "iuf"
        and phase.dtype.kind == "f"
        and counts.ndim == phase.ndim == 3
        and len(counts) == len(phase) > 0
        and counts.shape[1:] == contract.input_shape
        and phase.shape[1:] == contract.output_shape
        and np.isfinite(counts).all()
        and np.isfinite(phase).all()
    )
    if max(counts.size, phase.size) > MAX_GOLDEN_PIXELS:
        what = f"golden pair of more than {MAX_GOLDEN_PIXELS:,} pixels"
        raise ModelError(what, where=where, remedy="export the model with fewer golden frames")
    if not good:
        what = f"golden pair of shapes {counts.shape} and {phase.shape} does not fit, or is not finite"
        raise ModelError(what, where=where, remedy="export the model again")


def _shape(value: onnx.ValueInfoProto) -> list[int | None]:
    return [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]


def _inputs(model: onnx.ModelProto, where: str) -> tuple[onnx.ValueInfoProto, onnx.ValueInfoProto | None]:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    dose = next((value for value in inputs if value.name == "dose_scale"), None)
    others = [value for value in inputs if value is not dose]
    if len(others) != 1:
        what = f"inputs {[value.name for value in inputs]}"
        raise ModelError(what, where=where, remedy="inputs must be the counts [N, 1, H, W] and, if any, dose_scale")
    if dose is not None and math.prod(side or 1 for side in _shape(dose)) != 1:
        raise ModelError(f"dose_scale has shape {_shape(dose)}", where=where, remedy="make it a scalar")
    for value in inputs:
        if value.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
            raise ModelError(f"input {value.name!r} is not float32", where=where, remedy="export it in float32")
    return others[0], dose


def _outputs(model: onnx.ModelProto, where: str) -> tuple[onnx.ValueInfoProto, str | None]:
    outputs = {value.name: value for value in model.graph.output}
    phase = outputs["phase"] if "phase" in outputs else next(iter(outputs.values())) if len(outputs) == 1 else None
    if phase is None:
        raise ModelError(f"outputs {list(outputs)}", where=where, remedy="name the phase output 'phase'")
    if phase.type.tensor_type.elem_type != onnx.TensorProto.FLOAT:
        raise ModelError(f"output {phase.name!r} is not float32", where=where, remedy="export it in float32")
    return phase, "amplitude" if "amplitude" in outputs else None


def _check_shape(value: onnx.ValueInfoProto, contract_shape: tuple[int, int], where: str) -> int | None:
    """Compare [N, 1, H, W] with the contract. Returns N, or None if the batch axis is dynamic."""
    shape = _shape(value)
    wanted = [shape[0], 1, *contract_shape] if shape else []
    if len(shape) != 4 or any(s not in (w, None) for s, w in zip(shape, wanted, strict=True)):
        what = f"{value.name!r} has shape {shape}, the contract says [N, 1, {contract_shape[0]}, {contract_shape[1]}]"
        raise ModelError(what, where=where, remedy="correct the contract, or export the model for this shape")
    return shape[0]
