"""Simulated pairs: the reconstructed probe on the reconstructed object, at positions that were not measured.

A scan gives a few hundred patterns of few features, and a network overfits them. The forward model is known, so further
patterns are computed between the positions of the scan, from the part of the object that is used for training, also
rotated and mirrored. What the forward model lacks (background, detector response) is corrected pixel by pixel by the
ratio of the mean measured and the mean simulated pattern.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.corpus.labels import FlatObject, flat_probe, flatten
from ptychostream.hpc_agent.corpus.training_data import WELL_COVERED, Corpus, Counts, Source, label_area, smallest
from ptychostream.model.contract import Preprocessing
from ptychostream.model.preprocessing import Preprocessor, good_counts

_T = TypeVar("_T", bound=np.generic)
CHUNK = 32
SYMMETRIES = 8
NORMAL = 200
"""Mean number of counts from which their distribution is taken as normal."""


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Simulated pairs: `counts` [n, H, W], `phase` and `amplitude` [n, h, w], `source` [n] of each (see `Corpus`)."""

    counts: NDArray[np.float32]
    phase: NDArray[np.float32]
    amplitude: NDArray[np.float32]
    source: NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class _View:
    """The object in one symmetry, its phase and amplitude, and [n, 2] where a pattern may be centred."""

    object: NDArray[np.complex64]
    phase: NDArray[np.float32]
    amplitude: NDArray[np.float32]
    centres: NDArray[np.intp]


class Simulator:
    """Simulated pairs of one scan, as many as are asked for.

    Parameters
    ----------
    source
        The scan; only the part of its object that is used for training is used.
    shape
        (h, w) of the labels.
    preprocessing
        What the edge does to a frame before the network.

    Raises
    ------
    TrainingError
        Patterns and probe differ in shape, or no patch fits into the training area.
    """

    def __init__(self, source: Source, shape: tuple[int, int], preprocessing: Preprocessing) -> None:
        reconstruction = source.reconstruction
        self._shape, self._size = shape, reconstruction.probe.shape[-2:]
        first = np.asarray(source.scan.counts[0])
        if first.shape != self._size:
            what = f"frames of {first.shape}, a probe of {self._size}"
            raise TrainingError(what, where="simulated pairs", remedy="train on measured pairs alone")
        flat = flatten(reconstruction)
        self._probe = flat_probe(reconstruction.probe, flat)
        self._gain = _calibrate(source, flat, self._probe, preprocessing)
        self._type, self._highest = first.dtype, np.iinfo(first.dtype).max
        self._preprocessor = Preprocessor(preprocessing, first.shape, first.dtype)
        inside = label_area(reconstruction, source.positions_m[source.selected], max(shape))
        covered = reconstruction.coverage >= WELL_COVERED * reconstruction.coverage.max()
        known = np.where(inside, flat.object, 1)  # nothing of the held-out area, not even under the probe's tails
        margin = max(self._size)
        object_ = _pad(known, (margin, margin))
        phase, amplitude = np.angle(object_), np.clip(np.abs(object_), 0, 1)
        self._views = [
            _View(
                object=turn(object_, symmetry),
                phase=turn(phase, symmetry),
                amplitude=turn(amplitude, symmetry),
                centres=_centres(turn(inside, symmetry), turn(covered, symmetry), shape) + margin,
            )
            for symmetry in range(SYMMETRIES)
        ]

    def draw(self, count: int, random: np.random.Generator, source: int = 0) -> Drawn:
        """`count` pairs with Poisson noise, as of the corpus's source `source`."""
        counts = np.empty((count, *self._preprocessor.output_shape), dtype=np.float32)
        phase, amplitude = (np.empty((count, *self._shape), dtype=np.float32) for _ in range(2))
        for start in range(0, count, CHUNK):
            rows = range(start, min(start + CHUNK, count))
            windows = np.empty((len(rows), *self._size), dtype=np.complex64)
            for window, row in zip(windows, rows, strict=True):
                view = self._views[random.integers(SYMMETRIES)]
                centre = view.centres[random.integers(len(view.centres))]
                window[:] = _window(view.object, centre, self._size)
                phase[row] = _window(view.phase, centre, self._shape)
                amplitude[row] = _window(view.amplitude, centre, self._shape)
            expected = diffract(self._probe, windows) * self._gain
            frames = np.minimum(poisson(expected, random), self._highest).astype(self._type)
            for frame, row in zip(frames, rows, strict=True):
                self._preprocessor.apply(frame, counts[row])
        return Drawn(counts, phase, amplitude, np.full(count, source))


class FreshPairs:
    """Simulated pairs that are made while a network trains, so that no epoch sees those of another.

    A network overfits few pairs, and many take memory. Pairs that are used once have to be made in every epoch.

    Parameters
    ----------
    corpus, sources
        The measured pairs, and the scans that they are from, in the corpus's order.
    ratio
        Number of simulated pairs for each measured one in an epoch.

    Attributes
    ----------
    count
        Simulated pairs in an epoch.

    Raises
    ------
    TrainingError
        As `Simulator`.
    """

    def __init__(self, corpus: Corpus, sources: Sequence[Source], ratio: float) -> None:
        measured = np.bincount(corpus.source[: corpus.measured], minlength=len(sources))
        self.count = round(ratio * corpus.measured)
        self._shares = measured / measured.sum()
        self._simulators = [Simulator(source, corpus.output_shape, corpus.preprocessing) for source in sources]

    def draw(self, count: int, random: np.random.Generator) -> Drawn:
        """`count` pairs, of each scan in proportion to its measured pairs."""
        shares = random.multinomial(count, self._shares)
        made = [
            one.draw(int(share), random, i) for i, (one, share) in enumerate(zip(self._simulators, shares, strict=True))
        ]
        names = [field.name for field in dataclasses.fields(Drawn)]
        return Drawn(*(np.concatenate([getattr(part, name) for part in made]) for name in names))


def add_simulated(corpus: Corpus, sources: Sequence[Source], ratio: float, seed: int) -> Corpus:
    """`corpus` with `ratio` simulated pairs for each measured pair, which are kept.

    Raises
    ------
    TrainingError
        Patterns and probe differ in shape, or no patch fits into the training area.
    """
    if not ratio:
        return corpus
    fresh = FreshPairs(corpus, sources, ratio)
    drawn = fresh.draw(fresh.count, np.random.default_rng(seed))
    return dataclasses.replace(
        corpus,
        counts=cast(Counts, np.concatenate([corpus.counts, smallest(drawn.counts)])),
        phase=np.concatenate([corpus.phase, drawn.phase]),
        amplitude=np.concatenate([corpus.amplitude, drawn.amplitude]),
        source=np.concatenate([corpus.source, drawn.source]),
    )


def poisson(expected: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    """Counts of these means. Above `NORMAL`, they are rounded normal deviates, which are drawn faster and differ in the
    skewness only, by less than 1/√`NORMAL`."""
    mean = expected.astype(np.float32)
    noise = random.standard_normal(expected.shape, dtype=np.float32)
    counts = np.rint(expected + np.sqrt(mean) * noise).astype(np.int64)
    few = mean < NORMAL
    counts[few] = random.poisson(expected[few])
    return counts


def turn(image: NDArray[_T], symmetry: int) -> NDArray[_T]:
    """One of the eight symmetries of a square; 0 is the identity."""
    turned = np.rot90(image, symmetry % 4)
    return turned[:, ::-1] if symmetry >= 4 else turned


def diffract(probe: NDArray[np.complex64], windows: NDArray[np.complex64]) -> NDArray[np.float32]:
    """[n, H, W] far-field intensity of all `probe` modes [modes, H, W] through `windows` [n, H, W], centred."""
    waves = fft.fft2(probe[None] * windows[:, None], norm="ortho", workers=-1)
    return np.fft.fftshift((np.abs(waves) ** 2).sum(axis=1), axes=(1, 2))


def _calibrate(
    source: Source, flat: FlatObject, probe: NDArray[np.complex64], preprocessing: Preprocessing
) -> NDArray[np.float64]:
    """[H, W] mean measured over mean simulated pattern at the positions trained on; 0 at bad pixels."""
    raw = preprocessing.model_copy(update={"crop": None, "bin": 1})
    size = probe.shape[-2:]
    object_ = _pad(flat.object, size)
    reconstruction = source.reconstruction
    frames = source.selected
    column_row = (source.positions_m[frames] - np.asarray(reconstruction.origin_m)) / reconstruction.pixel_m
    centres = np.rint(column_row[:, ::-1]).astype(int) + size
    simulated, measured = np.zeros(size), np.zeros(size)
    for start in range(0, len(frames), CHUNK):
        windows = np.stack([_window(object_, centre, size) for centre in centres[start : start + CHUNK]])
        simulated += diffract(probe, windows).sum(axis=0)
        for frame in frames[start : start + CHUNK]:
            measured += good_counts(raw, np.asarray(source.scan.counts[int(frame)]))[0]
    return measured / np.maximum(simulated, 1e-6 * simulated.max())


def _centres(inside: NDArray[np.generic], covered: NDArray[np.generic], shape: tuple[int, int]) -> NDArray[np.intp]:
    """[n, 2] (row, column) where a patch lies in the area trained on and its middle half is well covered."""
    fits = ndimage.minimum_filter(inside.astype(np.uint8), size=shape, mode="constant")
    good = ndimage.minimum_filter(covered.astype(np.uint8), size=(shape[0] // 2, shape[1] // 2), mode="constant")
    centres = np.argwhere((fits > 0) & (good > 0))
    if len(centres) == 0:
        what = "no patch fits into the area trained on"
        raise TrainingError(what, where="simulated pairs", remedy="train on more frames, or on measured pairs alone")
    return centres


def _pad(object_: NDArray[np.generic], size: tuple[int, ...]) -> NDArray[np.complex64]:
    """The object with free space around it, as wide as a window."""
    return np.pad(object_, [(size[0], size[0]), (size[1], size[1])], constant_values=1).astype(np.complex64)


def _window(image: NDArray[_T], centre: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[_T]:
    """`shape` pixels of `image`, [h//2, w//2] at `centre`."""
    top, left = (int(centre[axis]) - shape[axis] // 2 for axis in (0, 1))
    return image[top : top + shape[0], left : left + shape[1]]
