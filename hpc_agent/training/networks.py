"""The networks of `architectures`, with the normalisation of the raw counts inside.

Phase is π·tanh, amplitude a sigmoid. The convolutions are followed by batch normalisation, which training needs
(without it the loss for small corpora stays on a plateau for many epochs). The export folds it into the convolutions,
so that the edge runs the published network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.corpus.normalisation import Normalisation
from ptychostream.hpc_agent.training.architectures import ARCHITECTURES, NETWORK_NAMES


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
    """Mirror of the encoder, ending in the channels of one output before its activation."""

    def __init__(self, widths: tuple[int, ...], channels: int) -> None:
        super().__init__()
        inwards = widths[::-1]
        self.blocks = nn.ModuleList(ConvBlock(a, b) for a, b in zip([inwards[0], *inwards], inwards, strict=False))
        self.last = nn.Conv2d(widths[0], channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = functional.interpolate(block(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = self.last(x)
        return out


class Network(nn.Module):  # type: ignore[misc]
    """A network on raw counts.

    Parameters
    ----------
    name
        One of `NETWORK_NAMES`.
    reduction
        2 gives a patch of half the window at the object's pixel, where the probe's footprint fills no more than that.
        Without a stem, the decoder's output, as large as the input, is averaged over `reduction` × `reduction`
        pixels. With a stem, the last convolution gives the smaller patch.
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
        self.architecture = ARCHITECTURES[name]
        self.heads = self.architecture.heads
        self.pooled = max(1, reduction // self.architecture.stem)
        self.shuffled = max(1, self.architecture.stem // reduction)
        widths, channels = self.architecture.widths, [self.architecture.stem**2, *self.architecture.widths]
        self.encoder = nn.ModuleList(ConvBlock(a, b) for a, b in zip(channels, widths, strict=False))
        self.decoders = nn.ModuleDict({head: Decoder(widths, self.shuffled**2) for head in self.heads})
        self.register_buffer("normalisation", torch.zeros(3, dtype=torch.float32))
        self.set_normalisation(normalisation or Normalisation())

    def set_normalisation(self, normalisation: Normalisation) -> None:
        values = [normalisation.scale, normalisation.gain, normalisation.offset]
        self.normalisation.copy_(torch.tensor(values, dtype=torch.float32))

    def forward(self, counts: Tensor, dose_scale: float | Tensor = 1.0) -> dict[str, Tensor]:
        """[N, 1, H, W] raw counts → [N, 1, h, w] by head: "phase" in rad, "amplitude" in 0…1.

        H and W are multiples of `architecture.divisor`; h = H / reduction, w = W / reduction.
        """
        scale, gain, offset = self.normalisation
        x = torch.sqrt(counts * (dose_scale * scale)) * gain + offset
        if self.architecture.stem > 1:
            x = functional.pixel_unshuffle(x, self.architecture.stem)
        for block in self.encoder:
            x = functional.max_pool2d(block(x), 2)
        out = {}
        for head in self.heads:
            y = functional.pixel_shuffle(self.decoders[head](x).float(), self.shuffled)
            y = torch.tanh(y) * math.pi if head == "phase" else torch.sigmoid(y)
            out[head] = functional.avg_pool2d(y, self.pooled) if self.pooled > 1 else y
        return out

    def parameter_count(self) -> int:
        """Weights and biases of the exported network, batch normalisation folded into the convolutions."""
        convolutions = [module for module in self.modules() if isinstance(module, nn.Conv2d)]
        return sum(conv.weight.numel() + conv.out_channels for conv in convolutions)

    def output_shape(self, input_shape: tuple[int, int]) -> tuple[int, int]:
        """(h, w) for patterns of (H, W). Raises TrainingError if the levels do not divide them."""
        divisor = self.architecture.divisor
        if any(side < 1 or side % divisor for side in input_shape):
            what = f"patterns of {input_shape[0]}×{input_shape[1]}"
            remedy = f"crop or bin them to a multiple of {divisor}"
            raise TrainingError(what, where=self.name, remedy=remedy)
        return input_shape[0] // self.reduction, input_shape[1] // self.reduction


def make_network(name: str, reduction: int = 1, normalisation: Normalisation | None = None) -> Network:
    """A network with new random weights (He et al. 2015, as PyTorch's convolutions are by default); see `Network`."""
    return Network(name, reduction, normalisation)
