"""The dose scale for judging a model on a scan: the one that the edge uses for that scan.

The first of these that is known is taken: the option; the scale that the edge's canvas of the scan gives for this
model; with DoseMode Manual the edge's DoseScale_RBV; with Auto, or where the mode is not known, the edge's own rule
(`model.dose`) on the scan's first frames; where that gives nothing, DoseScale_RBV, or 1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ptychostream.errors import ScanFileError
from ptychostream.model.dose import choose_scale
from ptychostream.scans.phase_file import read_provenance

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EdgeDose:
    """The dose records of the edge.

    Attributes
    ----------
    automatic
        DoseMode_RBV is Auto; None: not read.
    scale
        DoseScale_RBV; None: not read.
    canvas
        File of the canvas of the scan that the edge saved; None: there is none.
    """

    automatic: bool | None = None
    scale: float | None = None
    canvas: str | None = None


@dataclass(frozen=True)
class JudgedDose:
    """A dose scale, and its source: "option", "canvas", "record", "counts" or "nothing"."""

    scale: float
    source: str


def given(provenance: Mapping[str, Any], sha256: str) -> float | None:
    """The scale that a model was given for a canvas, by what the edge wrote of it; None where that is not told.

    A scan's first patches may be at a scale that differs a little: the last one counts.
    """
    try:
        makers = [maker for maker in provenance["models"] if maker["sha256"] == sha256]
        if not makers:
            return None
        low, high = makers[-1]["dose_scale"]
        scale = provenance["dose_scale"] if makers[-1] is provenance["models"][-1] else low if low == high else 0.0
        return float(scale) if scale > 0 else None
    except (KeyError, TypeError, ValueError):  # of an edge that writes otherwise
        return None


def judged_dose(
    sha256: str,
    trained: float | None,
    edge: EdgeDose,
    first_counts: Callable[[], Sequence[float]],
    fixed: float | None = None,
) -> JudgedDose:
    """At which scale a model is judged; see the module.

    Parameters
    ----------
    sha256, trained
        Of the model, and the counts that it was trained at.
    first_counts
        Counts of the scan's first frames, as this model's preprocessing gives them; read where they are asked for.
    fixed
        The options' scale; None: as the edge has it.
    """
    if fixed is not None:
        return JudgedDose(fixed, "option")
    told = given(_provenance(edge.canvas), sha256)
    if told is not None:
        return JudgedDose(told, "canvas")
    if edge.automatic is not False:
        chosen = choose_scale(first_counts(), trained)
        if chosen is not None:
            return JudgedDose(chosen, "counts")
    return JudgedDose(1.0, "nothing") if edge.scale is None else JudgedDose(edge.scale, "record")


def _provenance(canvas: str | None) -> Mapping[str, Any]:
    if canvas is None:
        return {}
    try:
        return read_provenance(canvas)
    except ScanFileError as error:
        _log.warning("the canvas does not tell its dose: %s", error)
        return {}
