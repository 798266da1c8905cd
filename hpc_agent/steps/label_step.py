"""The step that makes pairs of a reconstructed scan and adds them to the corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import ReconstructionError
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.simulated_pairs import add_simulated
from ptychostream.hpc_agent.corpus.training_data import Source, default_preprocessing, measured_corpus
from ptychostream.hpc_agent.steps.step_parts import opened, read_options, source_of
from ptychostream.hpc_agent.training.model_job import patch_shape
from ptychostream.model.contract import Preprocessing
from ptychostream.model.preprocessing import Preprocessor
from ptychostream.reconstruct.soundness import SoundnessLimits, unsound
from ptychostream.scans.reconstruction_file import read_reconstruction


class LabelOptions(Settings):
    """How pairs are made from a scan.

    Attributes
    ----------
    simulated
        Simulated pairs for each measured one (see `ptychostream.hpc_agent.corpus.simulated_pairs`).
    validation
        Fraction of the measured pairs that is never trained on.
    crop, bin
        Crop of a frame as (row, column, height, width) in raw pixels, and binning; the same at the edge.
    seed
        Seed of the simulated pairs.
    keep_pairs
        How many pairs the corpus keeps: the oldest scans are removed. None: all.
    limits
        Limits for reconstructions that may become labels.
    """

    simulated: float = Field(0.0, ge=0)
    validation: float = Field(0.1, gt=0, lt=1)
    crop: tuple[int, int, int, int] | None = None
    bin: int = Field(1, ge=1)
    seed: int = Field(0, ge=0)
    keep_pairs: int | None = Field(None, ge=1)
    limits: SoundnessLimits = SoundnessLimits()


def label_step(
    *,
    scan: str,
    scan_options: Mapping[str, Any],
    key: str,
    reconstruction: str,
    corpus: str,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Add the pairs of a scan to the corpus in the folder `corpus`, once: by its key it is known again.

    Offset and ramp of the reconstruction are taken off (see `ptychostream.hpc_agent.corpus.labels`). Patches are as
    large as those that the corpus has of this geometry, or else as the probe suggests.

    Returns
    -------
    dict
        `pairs` and `validation` of this scan, `left_out` (its frames that are no measurement), `corpus_pairs` and
        `corpus_scans` of all.

    Raises
    ------
    ReconstructionError
        The reconstruction is not sound.
    ScanFileError, TrainingError, GeometryError, FrameError, ConfigError
        A file cannot be read, the corpus cannot be written (it is then unchanged), the scan gives no pairs, or an
        option is wrong.
    """
    chosen = read_options(LabelOptions, options, "label")
    store = CorpusStore(Path(corpus))
    if key not in {shard.key for shard in store.shards()}:
        made = read_reconstruction(reconstruction)
        reason = unsound(made, chosen.limits)
        if reason:
            remedy = "it makes no labels; reconstruct the scan again with other options"
            raise ReconstructionError(reason, where=reconstruction, remedy=remedy)
        with opened(scan, scan_options) as file:
            whole = source_of(file, made)
            spec = preprocessing(whole, chosen)
            (source,), pairs = measured_corpus([whole], _shape(store, whole, spec), spec)
            pairs = add_simulated(pairs, [source], chosen.simulated, chosen.seed)
        provenance = {
            "scan": scan,
            "reconstruction": reconstruction,
            "r_factor": made.r_factor,
            "engine": made.engine,
            "left_out": len(whole.selected) - len(source.selected),
            "options": chosen.model_dump(mode="json"),
        }
        store.append(key, pairs, validation=chosen.validation, provenance=provenance)
    if chosen.keep_pairs is not None:
        store.keep(chosen.keep_pairs, key)
    shards = {shard.key: shard for shard in store.shards()}
    return {
        "pairs": shards[key].pairs,
        "validation": shards[key].validation,
        "left_out": int(shards[key].provenance.get("left_out", 0)),
        "corpus_pairs": sum(shard.pairs for shard in shards.values()),
        "corpus_scans": len(shards),
    }


def preprocessing(source: Source, options: LabelOptions) -> Preprocessing:
    """The preprocessing of a scan's frames."""
    return default_preprocessing([source.scan]).model_copy(update={"crop": options.crop, "bin": options.bin})


def _shape(store: CorpusStore, source: Source, spec: Preprocessing) -> tuple[int, int]:
    """(h, w) of a label. The probe's extent, which decides it, may differ slightly between scans."""
    first = np.asarray(source.scan.counts[0])
    given = Preprocessor(spec, first.shape, first.dtype).output_shape
    for shard in reversed(store.shards()):
        if shard.input_shape == given and np.isclose(shard.pixel_m, source.reconstruction.pixel_m, rtol=1e-3, atol=0):
            return shard.output_shape
    return patch_shape(source, spec)
