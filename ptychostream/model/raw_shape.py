"""The raw frames that a model takes: their shape, and what is wrong with another one, before a frame is decoded."""

from __future__ import annotations

from collections.abc import Callable

from ptychostream.model.contract import ModelContract

_WIDEST = 4
"""Bytes of the widest counts that a detector sends."""


def raw_shape(contract: ModelContract) -> tuple[int, int]:
    """The smallest [rows, columns] of a raw frame that the contract's preprocessing takes."""
    spec = contract.preprocessing
    if spec.bad_pixels is not None:
        rows, columns = spec.bad_pixels.shape
    elif spec.crop is not None:
        rows, columns = spec.crop[0] + spec.crop[2], spec.crop[1] + spec.crop[3]
    else:
        rows, columns = (side * spec.bin for side in contract.input_shape[:: -1 if spec.rot90 % 2 else 1])
    return rows, columns


def raw_bytes(contract: ModelContract) -> int:
    """Bytes of a raw frame of that shape, of 32-bit counts."""
    rows, columns = raw_shape(contract)
    return rows * columns * _WIDEST


def shape_judge(contract: ModelContract) -> Callable[[tuple[int, int]], str]:
    """Says why the model cannot take raw frames of a shape [rows, columns]; "": it can.

    With a crop and without a mask, frames that are larger than the crop are taken.
    """
    spec, least = contract.preprocessing, raw_shape(contract)
    cropped = spec.crop is not None and spec.bad_pixels is None

    def fault(shape: tuple[int, int]) -> str:
        if shape == least or (cropped and shape[0] >= least[0] and shape[1] >= least[1]):
            return ""
        takes = f"{least[0]} × {least[1]}" + (" or more" if cropped else "")
        return f"a frame of {shape[0]} × {shape[1]}, the model {contract.name} takes {takes}"

    return fault
