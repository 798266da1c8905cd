"""How well each frame is explained, as arrays for a plot: positions, R factors, and the positions of the worst."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychostream.ioc.records.records import Records
from ptychostream.plugins.refining.refined import Refined
from ptychostream.scans.scan import BADLY_EXPLAINED


class ResidualMap:
    """Writes the arrays of the newest refined image, once for each image."""

    def __init__(self) -> None:
        self._shown = 0

    def show(self, refined: Refined | None, records: Records) -> None:
        """Write the arrays to the records, if the image is new."""
        if refined is None or refined.number == self._shown:
            return
        self._shown = refined.number
        for name, values in arrays(refined.residuals).items():
            records.put_array(name, values)


def arrays(residuals: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The arrays by record, for `Refined.residuals`."""
    x, y, relative = 1e6 * residuals[0], 1e6 * residuals[1], residuals[2]
    bad = relative > BADLY_EXPLAINED
    return {
        "Refine:ResidualX_RBV": x,
        "Refine:ResidualY_RBV": y,
        "Refine:Residual_RBV": relative,
        "Refine:WorstX_RBV": x[bad],
        "Refine:WorstY_RBV": y[bad],
    }
