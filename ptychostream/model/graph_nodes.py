"""ONNX nodes and constants as they are added one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


class GraphNodes:
    """Nodes and weights of a graph, numbered in the order in which they are added.

    Parameters
    ----------
    prefix
        Before the names that are made here.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: NDArray[Any] | np.generic, name: str = "") -> str:
        """Add a constant; returns its name."""
        name = name or f"{self._prefix}constant_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, operator: str, inputs: Sequence[str], output: str = "", **attributes: object) -> str:
        """Add a node with one output; returns the output's name."""
        output = output or f"{self._prefix}{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output
