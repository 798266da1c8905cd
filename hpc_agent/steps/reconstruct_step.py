"""The step that reconstructs a scan, starting from the live canvas and the last probe if there are any.

Where the edge has refined the scan and the agent may take that, its result is the reconstruction, if it is sound.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.errors import DivergedError, GeometryError, ReconstructionError, ScanFileError
from ptychostream.frames.survey import survey
from ptychostream.hpc_agent.reconstruct import ReconstructOptions, reconstruct
from ptychostream.hpc_agent.reconstruct.refined import RefinedLimits, take_refined
from ptychostream.hpc_agent.running.runner_process import Progress
from ptychostream.hpc_agent.steps.step_parts import opened, read_options, silent
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.figures import reconstruction_figure, save_figure
from ptychostream.quality.mask_figure import mask_figure
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.patterns import Patterns, Window
from ptychostream.reconstruct.soundness import SoundnessLimits, unsound
from ptychostream.reconstruct.start import object_from_phase
from ptychostream.scans.phase_file import read_phase_image
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan

_log = logging.getLogger(__name__)
_RESULT = ("reconstruction", "picture", "r_factor", "explained", "iterations", "seconds")


class ReconstructStepOptions(ReconstructOptions):
    """As for `reconstruct`, and besides:

    Attributes
    ----------
    warm_iterations
        Iterations if the reconstruction starts from canvas and probe; None: `iterations`.
    limits
        Limits beyond which the reconstruction counts as diverged.
    refined
        When the edge's refined result is taken; it has to be within `limits`, too.
    """

    warm_iterations: int | None = Field(None, ge=1)
    limits: SoundnessLimits = SoundnessLimits()
    refined: RefinedLimits = RefinedLimits()


@dataclasses.dataclass(frozen=True)
class InitialEstimate:
    """Initial object and probe of a reconstruction; None: the default ones."""

    canvas: PhaseImage | None = None
    probe: NDArray[np.complex64] | None = None

    @property
    def names(self) -> list[str]:
        """Names of the estimates that are given."""
        return [name for name in ("canvas", "probe") if getattr(self, name) is not None]

    def object(self, grid: ObjectGrid) -> NDArray[np.complex64]:
        """[Ho, Wo] initial object."""
        return np.ones(grid.shape, np.complex64) if self.canvas is None else object_from_phase(self.canvas, grid)


def reconstruct_step(
    *,
    scan: str,
    scan_options: Mapping[str, Any],
    key: str,
    folder: str,
    options: Mapping[str, Any],
    initial: Mapping[str, str | None] | None = None,
    refined: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Reconstruct a scan into `folder`: reconstruction.h5 and reconstruction.png.

    mask.png is written where pixels are no measurement though the file does not name them.

    A reconstruction of the same file with the same options that exists already is returned. If the reconstruction
    diverges from a given start, it is tried again from the default start. If that diverges too, it is written to
    diverged.h5, for people only.

    Parameters
    ----------
    scan, scan_options, key
        The file, how to read it, and the scan's name.
    options
        See `ReconstructStepOptions`.
    initial
        Files to start from: `canvas`, a phase image of this scan, and `reconstruction`, whose probe is used. A file
        that is missing, damaged or of another geometry is left out.
    refined
        `file`, the edge's refined result of this scan, or `reason`, why there is none; None: it must not be taken.

    Returns
    -------
    dict
        `reconstruction` and `picture` (paths), `r_factor`, `explained` (1 − R / R₀, None where it is not known),
        `iterations`, `seconds` (None where the iterations did not finish), `warm_start` (names of the estimates it
        started from), `diverged`, `reason`; `refined`, the edge's file where that is the reconstruction, else "", and
        `refined_refused`, why it is not, or "".

    Raises
    ------
    ScanFileError, ReconstructionError, ConfigError
        The scan cannot be read or reconstructed, a file cannot be written, or an option is wrong.
    """
    chosen = read_options(ReconstructStepOptions, options, "reconstruct")
    target = Path(folder) / "reconstruction.h5"
    asked = {**_identity(scan), "scan_options": dict(scan_options), "options": chosen.model_dump(mode="json")}
    made, reason = _finished(target, asked), ""
    if made is None:
        began, refused = time.perf_counter(), ""
        with opened(scan, scan_options) as file:
            read = cache(lambda: Patterns.read(file, Window(chosen.crop, chosen.bin)))
            if refined is not None:
                made, refused = _refined(file, scan, chosen, refined, key, read)
            if made is None:
                made, reason = _attempt(file, chosen, _start(file, initial or {}, chosen), progress, key, read)
            mask = _shown_mask(file, made) if made is not None else None
        if made is None:
            told = {"refined": "", "refined_refused": refused}
            return {**dict.fromkeys(_RESULT), "warm_start": [], "diverged": True, "reason": reason, **told}
        made.provenance.update(step=asked, seconds=time.perf_counter() - began, refined_refused=refused)
        target = target.with_name("diverged.h5") if reason else target
        if target.with_suffix(".png").exists():
            target.with_suffix(".png").unlink()  # of the one before
        write_reconstruction(target, made)
        mask_picture = target.with_name("mask.png")
        mask_picture.unlink(missing_ok=True)  # of the one before
        if mask is not None:
            save_figure(mask, mask_picture, dpi=100)
    picture = target.with_suffix(".png")
    if not picture.exists():
        save_figure(reconstruction_figure(made), picture, dpi=100)
    values = (
        str(target),
        str(picture),
        made.r_factor,
        made.provenance.get("explained"),
        len(made.errors),
        made.provenance["seconds"],
    )
    return {
        **dict(zip(_RESULT, values, strict=True)),
        "warm_start": made.provenance["warm_start"],
        "diverged": bool(reason),
        "reason": reason,
        "refined": str(made.provenance.get("refined", "")),
        "refined_refused": str(made.provenance.get("refined_refused", "")),
    }


def _refined(
    scan: Scan,
    scan_file: str,
    options: ReconstructStepOptions,
    refined: Mapping[str, str],
    key: str,
    read: Callable[[], Patterns],
) -> tuple[Reconstruction | None, str]:
    """The edge's refined result; or None, and why it is not taken."""
    if options.crop is not None or options.bin > 1:
        return None, "crop or bin of the step reconstruct is not that of the edge's frames"
    path = refined.get("file", "")
    if not path:
        return None, refined.get("reason", "") or "there is none"
    try:
        made = take_refined(scan, path, options.refined, options.limits, scan_file, read)
    except (ScanFileError, GeometryError, ReconstructionError) as error:
        _log.warning("%s: the edge's refined result is not taken: %s", key, error)
        return None, error.what
    made.provenance.update(refined=path, warm_start=[])
    return made, ""


def _shown_mask(scan: Scan, made: Reconstruction) -> Figure | None:
    """The pixels that were left out, or might have to be, where the file does not name them itself."""
    pixels = made.provenance.get("pixels", {})
    if pixels.get("mark_pixels") or pixels.get("saturation_proposed"):
        return mask_figure(survey(scan), scan.scan_id)
    return None


def _attempt(
    scan: Scan,
    options: ReconstructStepOptions,
    start: InitialEstimate,
    progress: Progress,
    key: str,
    read: Callable[[], Patterns],
) -> tuple[Reconstruction | None, str]:
    """The reconstruction, and why it is not sound; tried again from the default start if it diverges."""
    made, reason = _reconstruct(scan, options, start, progress, read())
    if reason and start.names:
        _log.warning("%s: from %s, %s; once more from nothing", key, " and ".join(start.names), reason)
        made, reason = _reconstruct(scan, options, InitialEstimate(), progress, read())
    return made, reason


def _reconstruct(
    scan: Scan, options: ReconstructStepOptions, start: InitialEstimate, progress: Progress, patterns: Patterns
) -> tuple[Reconstruction | None, str]:
    iterations = options.iterations
    if len(start.names) == 2 and options.warm_iterations is not None:
        iterations = options.warm_iterations

    def tell(iteration: int, r_factor: float) -> None:
        progress({"iteration": iteration, "iterations": iterations, "r_factor": r_factor})

    try:
        made = reconstruct(
            scan,
            options.model_copy(update={"iterations": iterations}),
            on_iteration=tell,
            initial_object=start.object,
            initial_probe=start.probe,
            patterns=patterns,
        )
    except DivergedError as error:
        return None, error.what
    made.provenance["warm_start"] = start.names
    return made, unsound(made, options.limits)


def _start(scan: Scan, initial: Mapping[str, str | None], options: ReconstructOptions) -> InitialEstimate:
    canvas = probe = None
    if initial.get("canvas"):
        try:
            canvas = read_phase_image(str(initial["canvas"]))
        except ScanFileError as error:
            _log.warning("started without the canvas: %s", error)
    if initial.get("reconstruction"):
        try:
            last = read_reconstruction(str(initial["reconstruction"]))
            probe = last.probe if _fits(scan, last, options) else None
        except ScanFileError as error:
            _log.warning("started without the last probe: %s", error)
    return InitialEstimate(canvas, probe)


def _fits(scan: Scan, last: Reconstruction, options: ReconstructOptions) -> bool:
    """Whether a probe has this scan's frame size and geometry, and finite power above zero."""
    size = Window(options.crop, options.bin).side(scan)
    pixel_m = object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m * options.bin, size, scan.radiation)
    power = float((np.abs(last.probe) ** 2).sum(dtype=np.float64))
    same = last.probe.shape[-1] == size and np.isclose(last.pixel_m, pixel_m, rtol=1e-3, atol=0)
    return bool(same and np.isfinite(power) and power > 0)


def _identity(scan: str) -> dict[str, Any]:
    """Name, size and time of a file, which show whether it is the same."""
    path = Path(scan)
    stat = path.stat() if path.exists() else None
    return {"scan": scan, "bytes": stat and stat.st_size, "changed_ns": stat and stat.st_mtime_ns}


def _finished(path: Path, asked: dict[str, Any]) -> Reconstruction | None:
    """The reconstruction in the folder, if it is for the same arguments."""
    if not path.exists():
        return None
    try:
        found = read_reconstruction(path)
    except ScanFileError as error:
        _log.warning("reconstructed again: %s", error)
        return None
    return found if found.provenance.get("step") == asked else None
