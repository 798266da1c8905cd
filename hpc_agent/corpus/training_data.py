"""Pairs of diffraction pattern and label, from scans and their reconstructions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from ptychostream.errors import TrainingError
from ptychostream.frames.survey import survey
from ptychostream.hpc_agent.corpus.labels import INTERPOLATION_MARGIN, Labels, make_labels
from ptychostream.hpc_agent.corpus.normalisation import Normalisation
from ptychostream.hpc_agent.corpus.stored_array import StoredArray
from ptychostream.model.contract import Preprocessing
from ptychostream.model.preprocessing import Preprocessor, refined
from ptychostream.quality.measured_input import MeasuredInput, measured_input
from ptychostream.scans.scan import Reconstruction, Scan

Counts: TypeAlias = "NDArray[np.uint16] | NDArray[np.float32]"


@dataclass(frozen=True)
class Source:
    """One scan for training.

    Attributes
    ----------
    scan
        The scan, with the patterns.
    reconstruction
        The scan's reconstruction.
    frames
        Indices to train on; None means all.
    held_out
        Indices of frames for judging the network, away from the labels of `frames`; None: it is not judged.
    """

    scan: Scan
    reconstruction: Reconstruction
    frames: NDArray[np.intp] | None = None
    held_out: NDArray[np.intp] | None = None

    @property
    def positions_m(self) -> NDArray[np.float64]:
        """[N, 2] of the scan's frames: those of the reconstruction, which may be corrected, for the frames it used."""
        refined, used = self.reconstruction.positions_m, self.reconstruction.frames
        if len(refined) == len(self.scan):
            return refined
        positions = np.array(self.scan.positions_m, dtype=np.float64)
        if used is not None and used.max(initial=-1) < len(positions):
            positions[used] = refined
        return positions

    @property
    def selected(self) -> NDArray[np.intp]:
        """Indices of the frames to train on, without those that have no position."""
        return self.placed(np.arange(len(self.scan)) if self.frames is None else self.frames)

    def placed(self, frames: NDArray[np.intp]) -> NDArray[np.intp]:
        """Those of `frames` whose position is known."""
        return frames[np.isfinite(self.positions_m[frames]).all(axis=1)]


@dataclass(frozen=True)
class Corpus:
    """All pairs, measured ones first. The arrays are in memory, or are read from files when they are indexed.

    Attributes
    ----------
    counts
        [N, H, W] preprocessed counts, uint16 if they fit, else float32.
    phase, amplitude
        [N, h, w] float32 labels.
    source
        [N] row of `weights` for each pair.
    weights
        [S, h, w] float32 footprint of each scan's probe.
    pixel_m
        Object pixel, metres.
    preprocessing
        The preprocessing that gave `counts`.
    scans
        Names of the scans.
    measured
        Number of measured pairs.
    validation
        [N] True at pairs that are not trained on and choose the best epoch; None: `train` chooses them.
    """

    counts: Counts | StoredArray
    phase: NDArray[np.float32] | StoredArray
    amplitude: NDArray[np.float32] | StoredArray
    source: NDArray[np.intp]
    weights: NDArray[np.float32]
    pixel_m: float
    preprocessing: Preprocessing
    scans: tuple[str, ...]
    measured: int
    validation: NDArray[np.bool_] | None = None

    def sample(self, most: int, among: NDArray[np.intp] | None = None) -> Counts:
        """Counts of at most `most` measured pairs, evenly over all of them, or over those that are named."""
        rows = np.arange(self.measured) if among is None else among[among < self.measured]
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.intp))
        return cast(Counts, self.counts[rows[chosen]])

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def input_shape(self) -> tuple[int, int]:
        return self.counts.shape[1], self.counts.shape[2]

    @property
    def output_shape(self) -> tuple[int, int]:
        return self.phase.shape[1], self.phase.shape[2]


@dataclass(frozen=True)
class Split:
    """Frame indices: `train` and `held_out` share no pixel; `gap` lies between and is used by neither."""

    train: NDArray[np.intp]
    held_out: NDArray[np.intp]
    gap: NDArray[np.intp]


SIDES = {"+x": (0, 1), "-x": (0, -1), "+y": (1, 1), "-y": (1, -1)}


def spatial_split(positions_m: NDArray[np.float64], patch_m: float, fraction: float = 0.15, side: str = "+x") -> Split:
    """Hold out the frames at one side of the scanned area, and drop those whose patches overlap theirs.

    Parameters
    ----------
    positions_m
        [N, 2] (x, y), metres.
    patch_m
        Side of the object's area that goes into a patch, metres (see `label_extent_m`).
    fraction
        Fraction of the frames to hold out, between 0 and 1.
    side
        "+x", "-x", "+y" or "-y".

    Raises
    ------
    TrainingError
        No frame is left for training.
    """
    if not 0 < fraction < 1 or side not in SIDES:
        raise TrainingError(f"fraction {fraction}, side {side!r}", where="split", remedy=f"0…1; {', '.join(SIDES)}")
    axis, sign = SIDES[side]
    order = np.argsort(-sign * positions_m[:, axis], kind="stable")
    held_out = np.sort(order[: max(1, round(fraction * len(positions_m)))])
    rest = np.setdiff1d(np.arange(len(positions_m)), held_out)
    distance, _ = cKDTree(positions_m[held_out]).query(positions_m[rest], p=np.inf)  # to the nearest one held out
    apart = np.asarray(distance) >= patch_m
    if not apart.any():
        what = f"no frame is {patch_m:.3g} m away from the {len(held_out)} held out"
        raise TrainingError(what, where="split", remedy="hold out fewer, or scan a larger area")
    return Split(train=rest[apart], held_out=held_out, gap=rest[~apart])


def label_extent_m(size: int, pixel_m: float) -> float:
    """Side of the object's area that goes into a label of `size` pixels, metres."""
    return (size + 2 * INTERPOLATION_MARGIN) * pixel_m


WELL_COVERED = 0.1
"""Part of the largest coverage below which an object is not compared; as in `quality.compare`."""


def held_out_area(
    reconstruction: Reconstruction, trained_positions_m: NDArray[np.float64], size: int
) -> NDArray[np.bool_]:
    """[Ho, Wo] True at the object's well covered pixels that went into no training label of `size` pixels."""
    covered = reconstruction.coverage >= WELL_COVERED * reconstruction.coverage.max()
    area: NDArray[np.bool_] = covered & ~label_area(reconstruction, trained_positions_m, size)
    return area


def label_area(reconstruction: Reconstruction, positions_m: NDArray[np.float64], size: int) -> NDArray[np.bool_]:
    """[Ho, Wo] True at the object's pixels that go into labels of `size` pixels at `positions_m`."""
    area = np.zeros(reconstruction.object.shape, dtype=np.bool_)
    extent = label_extent_m(size, reconstruction.pixel_m)
    first = (positions_m - extent / 2 - np.asarray(reconstruction.origin_m)) / reconstruction.pixel_m
    last = first + extent / reconstruction.pixel_m
    for (left, top), (right, bottom) in zip(np.floor(first).astype(int), np.ceil(last).astype(int), strict=True):
        area[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return area


def default_preprocessing(scans: Sequence[Scan]) -> Preprocessing:
    """Preprocessing without crop and binning, with the bad pixels and the lowest saturation of all `scans`.

    One detector took them all. Marks that the files' masks do not name are found (`ptychostream.frames.survey`).

    Raises
    ------
    TrainingError
        The scans' patterns differ in shape.
    ScanFileError
        A mask of bad pixels cannot be right, or frames cannot be read.
    """
    shapes = {scan.counts.shape[1:] for scan in scans}
    if len(shapes) != 1:
        raise TrainingError(f"patterns of shapes {sorted(shapes)}", where="corpus", remedy="give scans of one shape")
    spec = Preprocessing()
    for scan in scans:
        found = survey(scan)
        spec = refined(spec, found.bad_pixels, found.saturation)
    return spec


def measured(source: Source, spec: Preprocessing) -> Source:
    """`source` without the frames that are no measurement: those to train on and the held-out ones."""
    ready = measured_input(source.scan, spec)
    held_out = None if source.held_out is None else _good(ready, source.held_out)
    return replace(source, frames=_good(ready, source.selected), held_out=held_out)


def _good(ready: MeasuredInput, frames: NDArray[np.intp]) -> NDArray[np.intp]:
    """Those of `frames` that are a measurement."""
    out = np.empty(ready.preprocessor.output_shape, np.float32)
    return np.array([frame for frame in frames if ready.limits.fault(ready.apply(int(frame), out)) is None], np.intp)


def _read_measured(source: Source, spec: Preprocessing) -> tuple[Source, Counts]:
    """What `measured` gives, and the preprocessed counts of the frames to train on: `read_counts` would read again."""
    ready, frames = measured_input(source.scan, spec), source.selected
    found = ready.survey
    plain = None  # what makes the counts, where the scan's own bad pixels are not all in `spec`
    if refined(spec, found.bad_pixels, found.saturation) != spec:
        plain = Preprocessor(spec, ready.preprocessor.raw_shape, ready.preprocessor.dtype)
    out = np.empty((len(frames), *ready.preprocessor.output_shape), np.float32)
    kept: list[np.intp] = []
    for frame in frames:
        raw, at = np.ascontiguousarray(source.scan.counts[int(frame)]), out[len(kept)]
        if ready.limits.fault(ready.preprocessor.apply(raw, at)) is None:
            if plain is not None:
                plain.apply(raw, at)
            kept.append(frame)
    held_out = None if source.held_out is None else _good(ready, source.held_out)
    return replace(source, frames=np.array(kept, np.intp), held_out=held_out), smallest(out[: len(kept)])


def build_corpus(
    sources: Sequence[Source], output_shape: tuple[int, int], preprocessing: Preprocessing | None = None
) -> Corpus:
    """Preprocess the patterns as the edge does, and cut their labels. Frames without a single count are left out.

    Raises
    ------
    TrainingError
        No frames, reconstructions that do not belong to the scans, or scans of different object pixels.
    GeometryError, FrameError
        As preprocessing and labels raise them.
    """
    if not sources:
        raise TrainingError("no scans", where="corpus", remedy="give at least one")
    spec = preprocessing or default_preprocessing([source.scan for source in sources])
    return _corpus(sources, (read_counts(source.scan, source.selected, spec) for source in sources), output_shape, spec)


def measured_corpus(
    sources: Sequence[Source], output_shape: tuple[int, int], spec: Preprocessing
) -> tuple[list[Source], Corpus]:
    """The sources without the frames that are no measurement, and their corpus. Each pattern is read once.

    Raises
    ------
    TrainingError, GeometryError, FrameError, ScanFileError
        See `build_corpus` and `measured`.
    """
    read = [_read_measured(source, spec) for source in sources]
    kept = [source for source, _ in read]
    return kept, _corpus(kept, [counts for _, counts in read], output_shape, spec)


def _corpus(
    sources: Sequence[Source],
    patterns: Iterable[Counts],
    output_shape: tuple[int, int],
    spec: Preprocessing,
) -> Corpus:
    """`patterns` are the preprocessed counts of each source's selected frames. They are read after the checks."""
    pixel = sources[0].reconstruction.pixel_m
    counts: list[Counts] = []
    labels: list[Labels] = []
    for source in sources:
        _check(source, pixel)
    for source, read in zip(sources, patterns, strict=True):
        lit = read.reshape(len(read), -1).any(axis=1)
        counts.append(read if lit.all() else read[lit])
        labels.append(make_labels(source.reconstruction, source.positions_m[source.selected[lit]], output_shape))
    return Corpus(
        counts=cast(Counts, np.concatenate(counts)),
        phase=np.concatenate([label.phase for label in labels]),
        amplitude=np.concatenate([label.amplitude for label in labels]),
        source=np.repeat(np.arange(len(sources)), [len(label.phase) for label in labels]),
        weights=np.stack([label.weight for label in labels]),
        pixel_m=pixel,
        preprocessing=spec,
        scans=tuple(source.scan.scan_id for source in sources),
        measured=sum(len(label.phase) for label in labels),
    )


def _check(source: Source, pixel_m: float) -> None:
    reconstruction, where = source.reconstruction, f"scan {source.scan.scan_id}"
    if reconstruction.scan_id and source.scan.scan_id and reconstruction.scan_id != source.scan.scan_id:
        what = f"its reconstruction is of scan {reconstruction.scan_id}"
        raise TrainingError(what, where=where, remedy="give the reconstruction of this scan")
    if not np.isclose(reconstruction.pixel_m, pixel_m, rtol=1e-3, atol=0):
        what = f"object pixel {reconstruction.pixel_m:.4g} m, that of the first scan {pixel_m:.4g} m"
        raise TrainingError(what, where=where, remedy="train on scans of one geometry")
    if len(source.selected) == 0:
        raise TrainingError("no frames to train on", where=where, remedy="select frames whose positions are known")


def read_counts(scan: Scan, frames: NDArray[np.intp], spec: Preprocessing) -> Counts:
    """[n, H, W] preprocessed counts of `frames`, read a few at a time."""
    first = np.asarray(scan.counts[int(frames[0])])
    preprocessor = Preprocessor(spec, first.shape, first.dtype)
    out = np.empty((len(frames), *preprocessor.output_shape), dtype=np.float32)
    for i, frame in enumerate(frames):
        preprocessor.apply(np.ascontiguousarray(scan.counts[int(frame)]), out[i])
    return smallest(out)


def smallest(counts: NDArray[np.float32]) -> Counts:
    """`counts` as uint16 if all values fit."""
    return counts.astype(np.uint16) if counts.max(initial=0) <= np.iinfo(np.uint16).max else counts


def measure_normalisation(counts: Counts) -> Normalisation:
    """Normalisation that brings √counts of these frames (a few hundred of them are looked at) to mean 0, deviation 1.

    Raises
    ------
    TrainingError
        The frames hold no counts.
    """
    sample = counts[:: max(1, len(counts) // 256)].astype(np.float64)
    mean = float(sample.mean())
    if mean <= 0:
        raise TrainingError("the patterns hold no counts", where="corpus", remedy="check the crop and the bad pixels")
    root = np.sqrt(sample / mean)
    deviation = float(root.std()) or 1.0
    return Normalisation(scale=1 / mean, gain=1 / deviation, offset=-float(root.mean()) / deviation)
