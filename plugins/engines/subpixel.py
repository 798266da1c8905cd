"""Replace PtychoNN's last enlargement: compute the same sums on a quarter of the pixels.

The decoder ends with a bilinear enlargement by two and a 3×3 convolution to one channel. On a CPU these take a fifth of
the network's time, because one output channel does not fill the vector registers, and the enlarged image does not fit
into the cache. Both are linear, so together they are one 3×3 convolution of the small image to four channels. There is
one channel for each position of an output pixel in its group of four. The channels are then interleaved ("sub-pixel
convolution", Shi et al. 2016, arXiv:1609.05158).

Only the two outermost output rows and columns differ, because there the convolution reads zeros and the enlargement
reads clamped pixels. They are computed as before, from narrow strips. The result is equal up to the rounding of
float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ptychostream.plugins.engines.graph import (
    add_constant,
    attributes,
    constants,
    opset,
    plain_conv3x3,
    prune,
    replace_nodes,
)

MAX_CHANNELS = 4
"""With more output channels the original form is as fast."""
HALF_PIXEL = (b"half_pixel", b"pytorch_half_pixel")


def merge_last_enlargement(model: onnx.ModelProto) -> bool:
    """Rewrite every bilinear ×2 `Resize` whose only user is a 3×3 `Conv` with few output channels, in place.

    Returns
    -------
    bool
        Whether anything was rewritten.
    """
    graph = model.graph
    values = constants(graph)
    uses: dict[str, int] = {}
    for name in [*(name for node in graph.node for name in node.input), *(value.name for value in graph.output)]:
        uses[name] = uses.get(name, 0) + 1
    resizes = {node.output[0]: node for node in graph.node if _doubles(node, values)}
    nodes: list[onnx.NodeProto] = []
    merged = False
    for node in graph.node:
        resize = resizes.get(node.input[0]) if node.input else None
        if resize is None or uses[node.input[0]] != 1 or not _few_channels(node, values):
            nodes.append(node)
            continue
        merged = True
        nodes += _Merger(model, resize, node, values).nodes()
    replace_nodes(graph, nodes)
    prune(graph)
    return merged


def phase_kernels(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel [out·4, in, 3, 3] on the small image for a kernel [out, in, 3, 3] on the enlarged one.

    The four channels of a group are in reading order. An enlarged pixel 2i+p is 3/4 of small pixel i and 1/4 of the
    neighbour on p's side. Tap a of the kernel at output 2i+p therefore reads the small pixels i-1, i and i+1 with the
    weights `taps[p, a]`.
    """
    near = {-1: (0.75, 0.25, 0.0), 0: (0.25, 0.75, 0.0), 1: (0.0, 0.75, 0.25), 2: (0.0, 0.25, 0.75)}
    taps = np.array([[near[p + a - 1] for a in range(3)] for p in range(2)])
    merged = np.einsum("ocab,pak,qbl->opqckl", weight.astype(np.float64), taps, taps)
    return merged.reshape(-1, weight.shape[1], 3, 3).astype(np.float32)


def _doubles(node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> bool:
    if node.op_type != "Resize" or len(node.input) != 3:
        return False
    found = attributes(node)
    scales = values.get(node.input[2])
    return (
        found.get("mode") == b"linear"
        and found.get("coordinate_transformation_mode", b"half_pixel") in HALF_PIXEL
        and not found.get("antialias", 0)
        and scales is not None
        and np.array_equal(scales, [1, 1, 2, 2])
    )


def _few_channels(node: onnx.NodeProto, values: dict[str, NDArray[np.float32]]) -> bool:
    if not plain_conv3x3(node) or any(name not in values for name in node.input[1:]):
        return False
    weight = values[node.input[1]]
    return weight.dtype == np.float32 and len(weight) <= MAX_CHANNELS


class _Merger:
    """Makes the nodes that replace one `Resize` and the `Conv` after it."""

    def __init__(
        self,
        model: onnx.ModelProto,
        resize: onnx.NodeProto,
        conv: onnx.NodeProto,
        values: dict[str, NDArray[np.float32]],
    ) -> None:
        self._graph = model.graph
        self._resize = resize
        self._conv = conv
        self._name = f"{conv.output[0]}/subpixel"
        self._split = {"num_outputs": 2} if opset(model) >= 18 else {}
        self._nodes: list[onnx.NodeProto] = []
        self._weight = values[conv.input[1]]
        channels = len(self._weight)
        self._bias = values[conv.input[2]] if len(conv.input) > 2 else np.zeros(channels, dtype=np.float32)

    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes for [N, C, H, W] → [N, O, 2H, 2W]: the inner part, and a border of two pixels."""
        for name, value in {"0": 0, "2": 2, "-2": -2, "end": 1 << 31, "rows": 2, "columns": 3}.items():
            self._constant(name, np.array([value], dtype=np.int64))
        small = self._resize.input[0]
        kernel = self._constant("weight", phase_kernels(self._weight))
        bias = self._constant("bias", np.repeat(self._bias, 4))
        core = self._add("Conv", [small, kernel, bias], "quartets", kernel_shape=[3, 3])
        core = self._add("DepthToSpace", [core], "core", blocksize=2, mode="CRD")
        top, bottom = self._strips(small, "rows")
        left, right = (self._slice(side, "2", "-2", "rows", f"side_{i}") for i, side in enumerate(self._columns(small)))
        middle = self._add("Concat", [left, core, right], "middle", axis=3)
        self._nodes.append(helper.make_node("Concat", [top, middle, bottom], [self._conv.output[0]], axis=2))
        return self._nodes

    def _columns(self, image: str) -> list[str]:
        """Names of the outermost two columns on both sides."""
        return [self._turn(strip, f"column_{i}") for i, strip in enumerate(self._strips(image, "columns"))]

    def _strips(self, image: str, what: str) -> list[str]:
        """Names of the outermost two rows or columns on both sides, computed by the original operators.

        Columns are transposed, because a convolution of rows is much faster than one of an image that is four pixels
        wide.
        """
        first = self._slice(image, "0", "2", what, f"{what}_first_in")
        last = self._slice(image, "-2", "end", what, f"{what}_last_in")
        both = self._add("Concat", [first, last], f"{what}_in", axis=0)
        weight = self._weight
        if what == "columns":
            both, weight = self._turn(both, "columns_turned"), np.swapaxes(weight, 2, 3)
        resize = self._plain(self._resize, [both, *self._resize.input[1:]], f"{what}_enlarged")
        inputs = [resize, self._constant(f"{what}_weight", weight), self._constant(f"{what}_bias", self._bias)]
        out = self._plain(self._conv, inputs, f"{what}_out")
        halves = [f"{self._name}/{what}_{half}" for half in ("first", "last")]
        self._nodes.append(helper.make_node("Split", [out], halves, axis=0, **self._split))
        return [
            self._slice(halves[0], "0", "2", "rows", f"{what}_first_out"),
            self._slice(halves[1], "-2", "end", "rows", f"{what}_last_out"),
        ]

    def _turn(self, image: str, output: str) -> str:
        return self._add("Transpose", [image], output, perm=[0, 1, 3, 2])

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        return add_constant(self._graph, f"{self._name}/{name}", value)

    def _add(self, operator: str, inputs: list[str], output: str, **found: object) -> str:
        name = f"{self._name}/{output}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **found))
        return name

    def _plain(self, like: onnx.NodeProto, inputs: list[str], output: str) -> str:
        node = onnx.NodeProto()
        node.CopyFrom(like)
        name = f"{self._name}/{output}"
        node.name = name
        del node.input[:], node.output[:]
        node.input.extend(inputs)
        node.output.append(name)
        self._nodes.append(node)
        return name

    def _slice(self, image: str, start: str, end: str, axis: str, output: str) -> str:
        limits = [f"{self._name}/{name}" for name in (start, end, axis)]
        return self._add("Slice", [image, *limits], output)
