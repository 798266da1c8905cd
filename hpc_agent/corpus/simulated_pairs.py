"""Simulated pairs: the reconstructed probe on the reconstructed object, at positions that were not measured.

A scan gives a few hundred patterns of few features, and a network overfits them. The forward model is known, so further
patterns are computed between the positions of the scan, from the part of the object that is used for training, also
rotated and mirrored. What the forward model lacks (background, detector response) is corrected pixel by pixel by the
ratio of the mean measured and the mean simulated pattern.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.corpus.labels import FlatObject, flat_probe, flatten
from ptychostream.hpc_agent.corpus.training_data import WELL_COVERED, Corpus, Counts, Source, label_area, smallest
from ptychostream.model.contract import Preprocessing
from ptychostream.model.preprocessing import Preprocessor, good_counts

CHUNK = 32
SYMMETRIES = 8


def add_simulated(corpus: Corpus, sources: Sequence[Source], ratio: float, seed: int) -> Corpus:
    """`corpus` with `ratio` simulated pairs for each measured pair of each scan.

    Raises
    ------
    TrainingError
        Patterns and probe differ in shape, or no patch fits into the training area.
    """
    parts = [corpus]
    for index, source in enumerate(sources):
        count = round(ratio * int((corpus.source == index).sum()))
        if count:
            random = np.random.default_rng([seed, index])
            counts, patches = simulate(source, count, corpus.output_shape, corpus.preprocessing, random)
            phase, amplitude = np.angle(patches), np.clip(np.abs(patches), 0, 1)
            share = np.full(count, index)
            parts.append(dataclasses.replace(corpus, counts=counts, phase=phase, amplitude=amplitude, source=share))
    return dataclasses.replace(
        corpus,
        counts=cast(Counts, np.concatenate([part.counts for part in parts])),
        phase=np.concatenate([part.phase for part in parts]),
        amplitude=np.concatenate([part.amplitude for part in parts]),
        source=np.concatenate([part.source for part in parts]),
    )


def simulate(
    source: Source,
    count: int,
    shape: tuple[int, int],
    preprocessing: Preprocessing,
    random: np.random.Generator,
) -> tuple[Counts, NDArray[np.complex64]]:
    """`count` preprocessed patterns [count, H, W] with Poisson noise, and the object under each [count, h, w]."""
    reconstruction, scan = source.reconstruction, source.scan
    size = reconstruction.probe.shape[-2:]
    first = np.asarray(scan.counts[0])
    if first.shape != size:
        what = f"frames of {first.shape}, a probe of {size}"
        raise TrainingError(what, where="simulated pairs", remedy="train on measured pairs alone")
    flat = flatten(reconstruction)
    probe = flat_probe(reconstruction.probe, flat)
    gain = _calibrate(source, flat, probe, preprocessing)
    inside = label_area(reconstruction, source.positions_m[source.selected], max(shape))
    known = np.where(inside, flat.object, 1)  # nothing of the held-out area, not even under the probe's tails
    covered = reconstruction.coverage >= WELL_COVERED * reconstruction.coverage.max()
    preprocessor = Preprocessor(preprocessing, first.shape, first.dtype)
    highest = np.iinfo(first.dtype).max
    counts = np.empty((count, *preprocessor.output_shape), dtype=np.float32)
    patches = np.empty((count, *shape), dtype=np.complex64)
    start = 0
    for symmetry, share in enumerate(random.multinomial(count, [1 / SYMMETRIES] * SYMMETRIES)):
        object_ = _pad(turn(known, symmetry), size)
        centres = _centres(turn(inside, symmetry), turn(covered, symmetry), shape)
        chosen = centres[random.integers(len(centres), size=share)] + size
        for first_of_chunk in range(0, share, CHUNK):
            windows = np.stack([_window(object_, centre, size) for centre in chosen[first_of_chunk:][:CHUNK]])
            expected = diffract(probe, windows) * gain
            frames = np.minimum(random.poisson(expected), highest).astype(first.dtype)
            for frame, window in zip(frames, windows, strict=True):
                preprocessor.apply(frame, counts[start])
                patches[start] = _window(window, np.array(size) // 2, shape)
                start += 1
    return smallest(counts), patches


def turn(image: NDArray[np.generic], symmetry: int) -> NDArray[np.generic]:
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


def _window(image: NDArray[np.complex64], centre: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[np.complex64]:
    """`shape` pixels of `image`, [h//2, w//2] at `centre`."""
    top, left = (int(centre[axis]) - shape[axis] // 2 for axis in (0, 1))
    return image[top : top + shape[0], left : left + shape[1]]
