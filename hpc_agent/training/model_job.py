"""A complete training job: from scans and reconstructions to a model file and its checkpoint."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychostream.hpc_agent.corpus.labels import flat_probe, flatten, suggest_reduction
from ptychostream.hpc_agent.corpus.simulated_pairs import FreshPairs
from ptychostream.hpc_agent.corpus.training_data import (
    Corpus,
    Source,
    default_preprocessing,
    held_out_area,
    measured_corpus,
)
from ptychostream.hpc_agent.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from ptychostream.hpc_agent.training.export import export, predict
from ptychostream.hpc_agent.training.networks import Network
from ptychostream.hpc_agent.training.training import Epoch, TrainingOptions, TrainingResult, train
from ptychostream.model.contract import ModelContract, PackedArray, Preprocessing, Training
from ptychostream.model.model_file import MAX_PROBE_PIXELS
from ptychostream.model.preprocessing import Preprocessor
from ptychostream.quality.contract_check import bit_depth_of, region_of
from ptychostream.quality.offline_inference import stitch_scan
from ptychostream.quality.quality import Quality, compare
from ptychostream.quality.sigma_calibration import Errors, calibrate, errors_of
from ptychostream.scans.scan import Reconstruction

GOLDEN_FRAMES = 2
MEAN_FRAMES = 4096
"""Number of frames for measuring a model's mean counts."""
RECORDED = ("ptychostream", "torch", "onnx", "numpy")
"""Packages whose versions are stored in a model."""


@dataclass(frozen=True)
class Judged:
    """Quality on frames that were not trained on, and the errors on an area that was never seen; None: none was."""

    quality: Quality
    errors: Errors | None = None


@dataclass(frozen=True)
class TrainedModel:
    """Result of a training job.

    Attributes
    ----------
    path, sha256
        The ONNX file.
    checkpoint
        File of the weights for a warm start.
    contract
        The contract as written, without golden pair and parameter count.
    result
        The network and the history of its training.
    held_out
        Quality for each source with held-out frames, on the area that shares no pixel with training.
    left_out
        Frames to train on that are no measurement.
    """

    path: Path
    sha256: str
    checkpoint: Path
    contract: ModelContract
    result: TrainingResult
    held_out: list[Quality]
    left_out: int = 0


def patch_shape(source: Source, preprocessing: Preprocessing | None = None) -> tuple[int, int]:
    """(h, w) of a network's patch: half of the pattern's side if the probe fills no more, else the full side."""
    spec = preprocessing or default_preprocessing([source.scan])
    first = np.asarray(source.scan.counts[0])
    height, width = Preprocessor(spec, first.shape, first.dtype).output_shape
    reduction = suggest_reduction(source.reconstruction.probe, (height, width))
    return height // reduction, width // reduction


def train_model(
    sources: Sequence[Source],
    path: str | Path,
    options: TrainingOptions | None = None,
    *,
    name: str = "",
    output_shape: tuple[int, int] | None = None,
    preprocessing: Preprocessing | None = None,
    warm_start: str | Path | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainedModel:
    """Train on `sources` and write the model to `path`, its checkpoint beside it.

    Parameters
    ----------
    sources
        Scans, their reconstructions and the frames of each to train on.
    path
        The ONNX file.
    options
        None means the defaults.
    name
        Of the model; by default the network's and the first scan's.
    output_shape
        (h, w) of a patch: the pattern's shape or half of it. None decides by the probe (`patch_shape`).
    preprocessing
        What the edge does to a frame before the graph; None: only the scans' bad pixels are removed.
    warm_start
        A checkpoint to start from.
    on_epoch
        See `train`; a KeyboardInterrupt ends the training, and the best epoch is written.

    Raises
    ------
    TrainingError, ModelError, GeometryError, FrameError
        The corpus cannot be made, the training fails, or the export fails.
    """
    options = options or TrainingOptions()
    initial, parent = (None, "") if warm_start is None else load_checkpoint(warm_start)
    spec = preprocessing or default_preprocessing([source.scan for source in sources])
    given = sum(len(source.selected) for source in sources)
    sources, corpus = measured_corpus(sources, output_shape or patch_shape(sources[0], spec), spec)
    fresh = FreshPairs(corpus, sources, options.simulated) if options.simulated else None
    result = train(corpus, options, initial=initial, on_epoch=on_epoch, fresh=fresh)

    def judge_all(contract: ModelContract) -> list[Judged]:
        return [judge(result.network, contract, source) for source in sources if source.held_out is not None]

    trained = write_trained(result, corpus, sources, path, name=name, parent=parent, judge_held_out=judge_all)
    return replace(trained, left_out=given - sum(len(source.selected) for source in sources))


def write_trained(
    result: TrainingResult,
    corpus: Corpus,
    sources: Sequence[Source],
    path: str | Path,
    *,
    name: str,
    parent: str,
    judge_held_out: Callable[[ModelContract], list[Judged]],
) -> TrainedModel:
    """Write a trained network to `path`, its checkpoint beside it.

    Parameters
    ----------
    result, corpus
        The network, and the corpus it was trained on.
    sources
        Scans, of which the first gives the contract's geometry and probe.
    name, parent
        See `train_model`; sha256 of the model whose weights it started from, or "".
    judge_held_out
        Gives the quality on frames that were not trained on, if there are any. The error of the phase is calibrated on
        the areas among them that were never seen.

    Raises
    ------
    ModelError, GeometryError, FrameError
        The export or `judge_held_out` fails.
    """
    contract = describe(corpus, sources, result, name, [parent] if parent else [])
    judged = judge_held_out(contract)
    held_out = [one.quality for one in judged]
    if held_out:
        ssim = float(np.mean([quality.ssim for quality in held_out]))
        training = contract.training.model_copy(update={"ssim": ssim})
        sigma = calibrate([one.errors for one in judged if one.errors is not None])
        contract = contract.model_copy(update={"training": training, "sigma": sigma})
    sha256 = export(result.network, contract, corpus.counts[:GOLDEN_FRAMES].astype(np.float32), path)
    checkpoint = checkpoint_path(path)
    save_checkpoint(checkpoint, result.network, sha256)
    return TrainedModel(Path(path), sha256, checkpoint, contract, result, held_out)


def judge(network: Network, contract: ModelContract, source: Source) -> Judged:
    """Stitch the held-out frames of `source` and compare them with its reconstruction, away from every training label.

    Raises
    ------
    GeometryError
        No pixel is left to compare.
    """
    frames = source.placed(np.arange(len(source.scan)) if source.held_out is None else source.held_out)
    canvas = stitch_scan(
        source.scan, contract, partial(predict, network), frames=frames, positions_m=source.positions_m, spread=True
    )
    trained = source.positions_m[source.selected]
    area = held_out_area(source.reconstruction, trained, max(contract.output_shape))
    image, reference = canvas.image(), source.reconstruction.phase_image()
    quality = compare(image, reference, area)
    return Judged(quality, errors_of(image, reference, area, max(contract.output_shape)))


def judge_frames(network: Network, contract: ModelContract, source: Source, frames: NDArray[np.intp]) -> Judged:
    """Stitch some frames of `source` and compare them with its reconstruction.

    Frames that were trained on may overlap with them, so that the error of the phase is not calibrated by them.

    Raises
    ------
    GeometryError
        They are too few to compare.
    """
    canvas = stitch_scan(
        source.scan, contract, partial(predict, network), frames=frames, positions_m=source.positions_m
    )
    return Judged(compare(canvas.image(), source.reconstruction.phase_image()))


def describe(
    corpus: Corpus, sources: Sequence[Source], result: TrainingResult, name: str, parents: list[str]
) -> ModelContract:
    """The contract of a trained network, without golden pair and parameter count."""
    scan, options = sources[0].scan, result.options
    sample = corpus.sample(MEAN_FRAMES)
    training = Training(
        scans=list(corpus.scans),
        frames=corpus.measured,
        seed=options.seed,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        parents=parents,
        package_versions={package: importlib.metadata.version(package) for package in RECORDED},
        validation_loss=result.best.validation_loss,
        **{"options": options.model_dump(), "best_epoch": result.best.number, "epochs_run": len(result.history)},
    )
    return ModelContract(
        name=name or f"{options.network}-{scan.scan_id}",
        network=options.network,
        input_shape=corpus.input_shape,
        output_shape=corpus.output_shape,
        object_pixel_m=corpus.pixel_m,
        radiation=scan.radiation,
        energy_ev=scan.energy_ev,
        distance_m=scan.distance_m,
        detector_pixel_m=scan.detector_pixel_m,
        region=region_of(scan),
        bit_depth=bit_depth_of(scan),
        preprocessing=corpus.preprocessing,
        patch_weight=PackedArray.pack(corpus.weights.mean(axis=0)),
        probe=_packed_probe(sources[0].reconstruction),
        mean_counts=float(sample.mean(dtype=np.float64) * sample[0].size * options.dose.factor),
        training=training,
    )


def _packed_probe(reconstruction: Reconstruction) -> PackedArray | None:
    """The probe for the labels, with its strongest modes if all need too much space; None if one mode does."""
    modes = flat_probe(reconstruction.probe, flatten(reconstruction))
    kept = MAX_PROBE_PIXELS // modes[0].size
    strongest = np.argsort(-np.square(np.abs(modes)).sum(axis=(1, 2)), kind="stable")[:kept]
    return PackedArray.pack(modes[np.sort(strongest)]) if kept else None
