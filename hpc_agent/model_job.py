"""One training job, whole: scans and reconstructions in, a model file and its checkpoint out."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np

from ptychostream.contract import ModelContract, PackedArray, Preprocessing, Training
from ptychostream.hpc_agent.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from ptychostream.hpc_agent.export import export, predict
from ptychostream.hpc_agent.labels import suggest_reduction
from ptychostream.hpc_agent.networks import Network
from ptychostream.hpc_agent.simulated_pairs import add_simulated
from ptychostream.hpc_agent.training import Epoch, TrainingOptions, TrainingResult, train
from ptychostream.hpc_agent.training_data import Corpus, Source, build_corpus, default_preprocessing, held_out_area
from ptychostream.offline_inference import stitch_scan
from ptychostream.preprocessing import Preprocessor
from ptychostream.quality import Quality, compare

GOLDEN_FRAMES = 2
RECORDED = ("ptychostream", "torch", "onnx", "numpy")
"""Packages whose versions a model remembers."""


@dataclass(frozen=True)
class TrainedModel:
    """What a training job wrote.

    Attributes
    ----------
    path, sha256
        Of the ONNX file.
    checkpoint
        Its weights as torch keeps them, for a warm start.
    contract
        As written, but for golden pair and parameter count.
    result
        The network and the history of its training.
    held_out
        Quality on the area that shares no pixel with training, of each source that holds frames out.
    """

    path: Path
    sha256: str
    checkpoint: Path
    contract: ModelContract
    result: TrainingResult
    held_out: list[Quality]


def patch_shape(source: Source, preprocessing: Preprocessing | None = None) -> tuple[int, int]:
    """(h, w) of a network's patch: half of the pattern's side where the probe fills no more, else all of it."""
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
        What the edge does to a frame before the graph; None takes frames as they are, less the scans' bad pixels.
    warm_start
        A checkpoint to start from.
    on_epoch
        See `train`; a KeyboardInterrupt ends the training, and the best epoch is written.

    Raises
    ------
    TrainingError, ModelError, GeometryError, FrameError
        As corpus, training and export raise them.
    """
    options = options or TrainingOptions()
    initial, parent = (None, "") if warm_start is None else load_checkpoint(warm_start)
    corpus = build_corpus(sources, output_shape or patch_shape(sources[0], preprocessing), preprocessing)
    corpus = add_simulated(corpus, sources, options.simulated, options.seed)
    result = train(corpus, options, initial=initial, on_epoch=on_epoch)
    contract = describe(corpus, sources, result, name, [parent] if parent else [])
    held_out = [judge(result.network, contract, source) for source in sources if source.held_out is not None]
    if held_out:
        ssim = float(np.mean([quality.ssim for quality in held_out]))
        contract = contract.model_copy(update={"training": contract.training.model_copy(update={"ssim": ssim})})
    sha256 = export(result.network, contract, corpus.counts[:GOLDEN_FRAMES].astype(np.float32), path)
    checkpoint = checkpoint_path(path)
    save_checkpoint(checkpoint, result.network, sha256)
    return TrainedModel(Path(path), sha256, checkpoint, contract, result, held_out)


def judge(network: Network, contract: ModelContract, source: Source) -> Quality:
    """Stitch the held-out frames of `source` and compare them with its reconstruction, away from every training label.

    Raises
    ------
    GeometryError
        Nothing is left to compare.
    """
    frames = source.placed(np.arange(len(source.scan)) if source.held_out is None else source.held_out)
    canvas = stitch_scan(
        source.scan, contract, partial(predict, network), frames=frames, positions_m=source.positions_m
    )
    trained = source.positions_m[source.selected]
    area = held_out_area(source.reconstruction, trained, max(contract.output_shape))
    return compare(canvas.image(), source.reconstruction.phase_image(), area)


def describe(
    corpus: Corpus, sources: Sequence[Source], result: TrainingResult, name: str, parents: list[str]
) -> ModelContract:
    """The contract of a trained network, but for its golden pair and parameter count."""
    scan, options = sources[0].scan, result.options
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
        energy_ev=scan.energy_ev,
        distance_m=scan.distance_m,
        detector_pixel_m=scan.detector_pixel_m,
        preprocessing=corpus.preprocessing,
        patch_weight=PackedArray.pack(corpus.weights.mean(axis=0)),
        mean_counts=float(corpus.counts[: corpus.measured].mean(dtype=np.float64) * corpus.counts[0].size),
        training=training,
    )
