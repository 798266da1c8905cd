"""The networks that can be trained, each as one entry of a table. Without torch.

All are convolutional encoder-decoders (Cherukara et al. 2020, Appl. Phys. Lett. 117, 044103; Babu et al. 2023, Nat.
Commun. 14, 7059). A level of the encoder is two 3×3 convolutions and a 2×2 maximum, a level of a decoder two 3×3
convolutions and a bilinear enlargement by 2. There is one decoder for each output.

============= ==== ============ ================ ========== ========================
name          stem levels       outputs          parameters MFLOP for a 128×128 frame
============= ==== ============ ================ ========== ========================
``ptychonn2`` 1    16 to 128    phase            733,921    632
``ptychonn``  1    32 to 256    phase, amplitude 4,694,690  3,350
``swiftnn``   4    32, 64, 128  phase            728,976    132
============= ==== ============ ================ ========== ========================

PtychoNN spends three quarters of its arithmetic on the levels at the full and at half the resolution, where it has the
fewest filters. ``swiftnn`` has no such levels. Its stem turns each square of 4×4 pixels into 16 channels (space to
depth), and its last convolution gives the pixels of such a square as channels, which are put back into their places
(depth to space; Shi et al. 2016, arXiv:1609.05158). Nothing of the pattern is lost on the way in.

A new network of this family is one more entry here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator


@dataclass(frozen=True)
class Architecture:
    """What distinguishes one network from another.

    Attributes
    ----------
    widths
        Filters of each level, from the outermost to the innermost.
    heads
        The outputs, "phase" first.
    stem
        Side of the squares of pixels that become channels before the first level.
    """

    widths: tuple[int, ...]
    heads: tuple[str, ...] = ("phase",)
    stem: int = 1

    @property
    def divisor(self) -> int:
        """The sides of a pattern are multiples of this many pixels."""
        return int(self.stem * 2 ** len(self.widths))


ARCHITECTURES = {
    "ptychonn2": Architecture((16, 32, 64, 128)),
    "ptychonn": Architecture((32, 64, 128, 256), ("phase", "amplitude")),
    "swiftnn": Architecture((32, 64, 128), stem=4),
}
NETWORK_NAMES = tuple(ARCHITECTURES)


def _known(name: str) -> str:
    if name not in ARCHITECTURES:
        raise ValueError(f"unknown network {name!r}; choose one of {', '.join(NETWORK_NAMES)}")
    return name


NetworkName = Annotated[str, AfterValidator(_known)]
"""The name of a network in a settings class."""
