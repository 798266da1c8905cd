"""PtychoNN's last enlargement without enlarging: the same sums in a quarter of the pixels.

The decoder ends in a bilinear enlargement by two and a 3×3 convolution to one channel. On a CPU these two are a fifth
of the network's time, because one output channel leaves vector registers empty and the enlarged image leaves the
cache. Both are linear, so they are one 3×3 convolution of the small image to four channels, one for each position of
an output pixel in its quartet ("sub-pixel convolution", Shi et al. 2016, arXiv:1609.05158), which are then interleaved.

Only the two outermost output rows and columns differ, where the convolution sees zeros and the enlargement clamped
pixels. They are computed as before, from narrow strips. The result is equal up to the rounding of float32.
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
"""With more output channels than this the plain form is as fast."""
HALF_PIXEL = (b"half_pixel", b"pytorch_half_pixel")


def merge_last_enlargement(model: onnx.ModelProto) -> bool:
    """Rewrite, in place, every bilinear ×2 `Resize` that feeds nothing but a 3×3 `Conv` of few output channels.

    Returns
    -------
    bool
        Whether there was one.
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
    """[out, in, 3, 3] kernel on the enlarged image → [out·4, in, 3, 3] on the small one, quartets in reading order.

    An enlarged pixel 2i+p is 3/4 of small pixel i and 1/4 of the neighbour on p's side, so tap a of the kernel at
    output 2i+p reads small pixels i-1, i and i+1 with the weights `taps[p, a]`.
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
    """The nodes that stand for one `Resize` and the `Conv` after it."""

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
        """[N, C, H, W] → [N, O, 2H, 2W], by the core and its frame of two pixels."""
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
        """The outermost two columns on either side."""
        return [self._turn(strip, f"column_{i}") for i, strip in enumerate(self._strips(image, "columns"))]

    def _strips(self, image: str, what: str) -> list[str]:
        """The outermost two rows or columns on either side, as the plain operators compute them.

        Columns are laid on their side: a convolution of rows is far quicker than one of an image four pixels wide.
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
