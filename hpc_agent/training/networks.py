"""PtychoNN and PtychoNN 2.0, with the normalisation of the raw counts inside.

Both are convolutional encoder-decoders with four levels (Cherukara et al. 2020, Appl. Phys. Lett. 117, 044103;
Babu et al. 2023, Nat. Commun. 14, 7059). A level of the encoder is two 3×3 convolutions and a 2×2 maximum, a level
of a decoder two 3×3 convolutions and a bilinear enlargement by 2; one decoder per output.

============= ============ ======= ==================== ==========================
name          first level  heads   outputs              parameters as exported
============= ============ ======= ==================== ==========================
``ptychonn``  32 filters   2       phase, amplitude     4,694,690
``ptychonn2`` 16 filters   1       phase                733,921
============= ============ ======= ==================== ==========================

Phase is π·tanh, amplitude a sigmoid. The convolutions are followed by batch normalisation, which training needs
(without it the loss for small corpora stays on a plateau for many epochs). The export folds it into the convolutions,
so that the edge runs the published network.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.corpus.normalisation import Normalisation

NetworkName = Literal["ptychonn2", "ptychonn"]
NETWORK_NAMES: tuple[str, ...] = get_args(NetworkName)
LEVELS = 4
FILTERS = {"ptychonn2": 16, "ptychonn": 32}
HEADS: dict[str, tuple[str, ...]] = {"ptychonn2": ("phase",), "ptychonn": ("phase", "amplitude")}


class ConvBlock(nn.Sequential):  # type: ignore[misc]  # torch is not followed
    """Two 3×3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        layers: list[nn.Module] = []
        for channels in (channels_in, channels_out):
            layers += [
                nn.Conv2d(channels, channels_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(inplace=True),
            ]
        super().__init__(*layers)


class Decoder(nn.Module):  # type: ignore[misc]
    """Mirror of the encoder, ending in one channel before its activation."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        widths = [filters * 2**level for level in range(LEVELS)][::-1]
        self.blocks = nn.ModuleList(ConvBlock(a, b) for a, b in zip([widths[0], *widths], widths, strict=False))
        self.last = nn.Conv2d(filters, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = functional.interpolate(block(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.last(x)
        return out


class Network(nn.Module):  # type: ignore[misc]
    """PtychoNN on raw counts.

    Parameters
    ----------
    name
        "ptychonn2" or "ptychonn".
    reduction
        The decoder's output, as large as the input, is averaged over `reduction` × `reduction` pixels. 2 gives a
        patch of half the window at the object's pixel, where the probe's footprint fills no more than that.
    normalisation
        From `ptychostream.hpc_agent.corpus.training_data.measure_normalisation`; saved with the weights.

    Raises
    ------
    TrainingError
        Unknown name, or a reduction that is not 1 or 2.
    """

    normalisation: Tensor

    def __init__(self, name: str, reduction: int = 1, normalisation: Normalisation | None = None) -> None:
        super().__init__()
        if name not in NETWORK_NAMES:
            remedy = f"choose one of {', '.join(NETWORK_NAMES)}"
            raise TrainingError(f"unknown network {name!r}", where="network", remedy=remedy)
        if reduction not in (1, 2):
            raise TrainingError(f"reduction {reduction}", where="network", remedy="1 or 2")
        self.name = name
        self.reduction = reduction
        self.heads = HEADS[name]
        filters = FILTERS[name]
        widths = [filters * 2**level for level in range(LEVELS)]
        self.encoder = nn.ModuleList(ConvBlock(a, b) for a, b in zip([1, *widths], widths, strict=False))
        self.decoders = nn.ModuleDict({head: Decoder(filters) for head in self.heads})
        self.register_buffer("normalisation", torch.zeros(3, dtype=torch.float32))
        self.set_normalisation(normalisation or Normalisation())

    def set_normalisation(self, normalisation: Normalisation) -> None:
        values = [normalisation.scale, normalisation.gain, normalisation.offset]
        self.normalisation.copy_(torch.tensor(values, dtype=torch.float32))

    def forward(self, counts: Tensor, dose_scale: float | Tensor = 1.0) -> dict[str, Tensor]:
        """[N, 1, H, W] raw counts → [N, 1, h, w] by head: "phase" in rad, "amplitude" in 0…1.

        H and W are multiples of 16; h = H / reduction, w = W / reduction.
        """
        scale, gain, offset = self.normalisation
        x = torch.sqrt(counts * (dose_scale * scale)) * gain + offset
        for block in self.encoder:
            x = functional.max_pool2d(block(x), 2)
        out = {}
        for head in self.heads:
            y = self.decoders[head](x).float()
            y = torch.tanh(y) * math.pi if head == "phase" else torch.sigmoid(y)
            out[head] = functional.avg_pool2d(y, self.reduction) if self.reduction > 1 else y
        return out

    def parameter_count(self) -> int:
        """Weights and biases of the exported network, batch normalisation folded into the convolutions."""
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        return sum(conv.weight.numel() + conv.out_channels for conv in convolutions)

    def output_shape(self, input_shape: tuple[int, int]) -> tuple[int, int]:
        """(h, w) for patterns of (H, W). Raises TrainingError if the levels do not divide them."""
        if any(side < 1 or side % 2**LEVELS for side in input_shape):
            what = f"patterns of {input_shape[0]}×{input_shape[1]}"
            remedy = f"crop or bin them to a multiple of {2**LEVELS}"
            raise TrainingError(what, where=self.name, remedy=remedy)
        return input_shape[0] // self.reduction, input_shape[1] // self.reduction


def make_network(name: str, reduction: int = 1, normalisation: Normalisation | None = None) -> Network:
    """A network with new random weights (He et al. 2015, as PyTorch's convolutions are by default); see `Network`."""
    return Network(name, reduction, normalisation)
