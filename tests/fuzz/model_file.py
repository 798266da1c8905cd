"""ONNX files of damaged bytes: a model that passes every check, or a ModelError."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fuzz.contract import SIZE, full_contract
from tiny_model import tiny_contract, tiny_graph

from ptychostream.errors import ModelError
from ptychostream.model.contract import CONTRACT_KEY
from ptychostream.model.model_file import parse_model


def seeds() -> Iterable[bytes]:
    """A tiny model with its contract inside, and one without."""
    for contract in (None, tiny_contract(SIZE), full_contract()):
        model = tiny_graph(SIZE)
        if contract is not None:
            model.metadata_props.add(key=CONTRACT_KEY, value=contract.to_json())
        yield model.SerializeToString()


def check(data: bytes) -> None:
    """Parse one file."""
    try:
        model = parse_model(data, Path("model.onnx"))
    except ModelError as error:
        assert error.remedy
    else:
        assert model.contract.input_shape[0] > 0
