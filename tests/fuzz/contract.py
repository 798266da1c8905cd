"""Model contracts as JSON: one that can be used, or a ModelError."""

from __future__ import annotations

import base64
import copy
import json
import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from fuzz.reader import Reader
from tiny_model import tiny_contract, tiny_graph

from ptychostream.errors import FrameError, GeometryError, ModelError
from ptychostream.model.contract import ModelContract, PackedArray, Preprocessing
from ptychostream.model.model_file import check_golden, parse_model
from ptychostream.model.preprocessing import Preprocessor

SIZE = 4
MODEL = tiny_graph(SIZE).SerializeToString()
_DTYPES = ("<f4", "<f8", "<c8", "|b1", "<i8", "O", "<U4", "V0", "i4,f4", "|S1", "M8[s]", ">f2", "nonsense", "V99999999",
           "f4,(", "bool")  # fmt: skip
_ITEMSIZE = {"<f4": 4, "<f8": 8, "<c8": 8, "<i8": 8, "O": 8, "<U4": 16, "i4,f4": 8, "M8[s]": 8, ">f2": 2}
_SHAPES = ([SIZE, SIZE], [], [0], [-1], [1, SIZE, SIZE], [0, SIZE, SIZE], [SIZE, -1], [1 << 40], [2, 1 << 62])
_VALUES = (0, -1, 1, 1.5, 1e308, "", "x", None, True, [], {}, [4, 4], [0, 0, 4, 4], [-1, 0, 4, 4], 1 << 40, 1 << 70,
           [1 << 40, 1 << 40, 4, 4], [1 << 40, 1 << 40])  # fmt: skip
ARRAYS = ("counts", "phase", "patch_weight", "bad_pixels", "probe")
_NAMES = ("NaN", "Infinity", "-Infinity")


def seeds() -> Iterable[bytes]:
    """The tiny model's contract, plain and with everything that a contract may have."""
    full = full_contract()
    yield b"\0" + tiny_contract(SIZE).to_json().encode()
    yield b"\0" + full.to_json().encode()
    for place in range(len(_leaves(json.loads(full.to_json())))):
        for kind in range(1, 60, 7):
            yield bytes([1, place, kind, kind // 2, kind // 3, 0, 1, 2, 3])


def full_contract() -> ModelContract:
    """One with every field set."""
    preprocessing = Preprocessing(
        crop=(1, 1, SIZE, SIZE), hot_threshold=1000, bad_pixels=PackedArray.pack(np.zeros((SIZE + 2, SIZE + 2), bool))
    )
    return tiny_contract(SIZE).model_copy(
        update={
            "preprocessing": preprocessing,
            "patch_weight": PackedArray.pack(np.ones((SIZE, SIZE), np.float32)),
            "probe": PackedArray.pack(np.ones((1, SIZE + 2, SIZE + 2), np.complex64)),
            "energy_ev": 1e4,
            "distance_m": 1.0,
            "detector_pixel_m": 5e-5,
        }
    )


def check(data: bytes) -> None:
    """Parse one contract beside a model that it may fit, and do with it what the edge does."""
    reader = Reader(data)
    text = reader.rest() if reader.byte() % 2 == 0 else _odd(reader).encode()
    try:
        contract = parse_model(MODEL, Path("model.onnx"), text).contract
        check_golden(contract, lambda counts, _: np.zeros((len(counts), *contract.output_shape), np.float32))
    except ModelError as error:
        assert error.remedy
        return
    numbers = [contract.object_pixel_m, contract.energy_ev, contract.distance_m, contract.mean_counts]
    if contract.golden is not None:
        numbers += [contract.golden.tolerance, contract.golden.dose_scale]
    assert all(number is None or math.isfinite(number) for number in numbers)
    spec = contract.preprocessing
    raw = spec.bad_pixels.shape if spec.bad_pixels is not None else (SIZE, SIZE)
    try:
        preprocessor = Preprocessor(spec, raw, np.uint16)
    except (FrameError, GeometryError) as error:
        assert error.remedy
        return
    preprocessor.apply(np.ones(raw, np.uint16), np.empty(preprocessor.output_shape, np.float32))


def _leaves(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path] * bool(path) + [leaf for key, inner in items for leaf in _leaves(inner, (*path, key))]


def _odd(reader: Reader) -> str:
    """A full contract with up to three values replaced."""
    contract = json.loads(full_contract().to_json())
    leaves = _leaves(contract)
    packed = [leaf for leaf in leaves if leaf[-1] in ARRAYS]
    for _ in range(1 + reader.byte() % 3):
        *path, last = reader.choice(leaves if reader.byte() % 2 else packed)
        parent = contract
        try:
            for key in path:
                parent = parent[key]
            parent[last] = _odd_value(reader, last)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier replacement took it away
    text = json.dumps(contract)
    for name in _NAMES:  # json writes them, and pydantic's parser reads them
        text = text.replace(json.dumps(f"!{name}"), name)
    return text


def _odd_value(reader: Reader, name: object) -> object:
    kind = reader.byte()
    if name in ARRAYS or kind < 32:
        return _packed(reader)
    if name == "dtype":
        return reader.choice(_DTYPES)
    if name == "shape":
        return reader.choice(_SHAPES)
    return f"!{reader.choice(_NAMES)}" if kind > 224 else copy.deepcopy(reader.choice(_VALUES))


def _packed(reader: Reader) -> dict[str, object]:
    """A packed array, three times in four with as many bytes as it says, where that is possible."""
    dtype, shape = reader.choice(_DTYPES), list(reader.choice(_SHAPES))
    size = reader.byte() % 90
    fitting = math.prod(shape) * _ITEMSIZE.get(dtype, 1)
    if reader.byte() % 4 and 0 <= fitting < 1 << 16:
        size = fitting
    return {"dtype": dtype, "shape": shape, "data": base64.b64encode(bytes([reader.byte()]) * size).decode()}
