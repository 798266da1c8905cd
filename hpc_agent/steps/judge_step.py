"""The step that compares a network's stitched phase of a scan with the scan's reconstruction."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import PtychostreamError
from ptychostream.hpc_agent.corpus.training_data import Source
from ptychostream.hpc_agent.edge.judge_dose import EdgeDose, judged_dose
from ptychostream.hpc_agent.running.runner_process import Progress
from ptychostream.hpc_agent.steps.step_parts import opened, read_options, silent, write_json
from ptychostream.hpc_agent.training.offline_network import load_network
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.model.model_file import load_model
from ptychostream.quality.contract_check import check_contract
from ptychostream.quality.figures import comparison_figure, save_figure
from ptychostream.quality.offline_inference import first_counts, stitch_scan
from ptychostream.quality.quality import compare
from ptychostream.scans.reconstruction_file import read_reconstruction

BATCH = 32

_log = logging.getLogger(__name__)


class JudgeOptions(Settings):
    """How a network is judged.

    Attributes
    ----------
    frames
        Largest number of frames to stitch, evenly over the scan; None: all.
    dose_scale
        Factor for the counts before inference; None: the edge's factor, see `judge_dose`.
    device
        A torch device, or "auto".
    """

    frames: int | None = Field(None, ge=8)
    dose_scale: float | None = Field(None, gt=0)
    device: str = "auto"


def judge_step(
    *,
    scan: str,
    scan_options: Mapping[str, Any],
    key: str,
    folder: str,
    reconstruction: str,
    model: str,
    checkpoint: str | None = None,
    previous: Mapping[str, str | None] | None = None,
    dose: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Stitch a scan through a model and compare it with the scan's reconstruction.

    Writes judged.json and judged.png into `folder`.

    Parameters
    ----------
    model, checkpoint
        The ONNX file, and its weights if there are any.
    previous
        The same two of the previous model, which is judged on the same frames. It is left out if that fails.
    dose
        The edge's dose records: the fields of `EdgeDose`.
    options
        See `JudgeOptions`.

    Returns
    -------
    dict
        `model` (sha256), `frames`, `dose_scale` and `dose_from` (see `JudgedDose`), `ssim`, `ssim_1px`, `pearson`,
        `pearson_1px`, `covered`, `figure` (a path), and `previous`: the same of the previous model, or None.

    Raises
    ------
    ScanFileError, ModelError, EngineError, TrainingError, GeometryError, FrameError, ConfigError
        A file cannot be read or written, a model cannot run, the images cannot be compared, or an option is wrong.
    """
    chosen = read_options(JudgeOptions, options or {}, "judge")
    target = Path(folder) / "judged.json"
    models = [(model, checkpoint)]
    if previous is not None and previous.get("model"):
        models.append((str(previous["model"]), previous.get("checkpoint")))
    asked = {
        "scan": scan,
        "reconstruction": reconstruction,
        "dose": dict(dose or {}),
        "models": [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path, _ in models if Path(path).exists()],
        "options": chosen.model_dump(mode="json"),
    }
    done = _finished(target, asked)
    if done is not None:
        return done
    made = read_reconstruction(reconstruction)
    with opened(scan, scan_options) as file:
        judgement = _Judgement(Source(file, made), made.phase_image(), chosen, EdgeDose(**(dose or {})))
        progress({"models": 0, "of": len(models)})
        result, image = judgement.of(*models[0])
        progress({"models": 1, "of": len(models)})
        beside = _beside(judgement, *models[1]) if len(models) > 1 else None
    figure = target.with_suffix(".png")
    drawn = comparison_figure(judgement.reference, image, image_name=f"{key} through {result['model'][:12]}")
    save_figure(drawn, figure, dpi=100)
    result |= {"figure": str(figure), "previous": beside}
    write_json(target, {"asked": asked, "result": result})
    return result


@dataclasses.dataclass(frozen=True)
class _Judgement:
    """A scan and its reconstruction, by which models are judged."""

    source: Source
    reference: PhaseImage
    options: JudgeOptions
    edge: EdgeDose

    def of(self, path: str, checkpoint: str | None) -> tuple[dict[str, Any], PhaseImage]:
        """The figures of a model, and its stitched phase of the scan."""
        model = load_model(path)
        check_contract(self.source.scan, model.contract, path)
        frames = _evenly(self.source, self.options.frames)
        first = partial(first_counts, self.source.scan, model.contract, self.source.selected)
        dose = judged_dose(model.sha256, model.contract.mean_counts, self.edge, first, self.options.dose_scale)
        canvas = stitch_scan(
            self.source.scan,
            model.contract,
            load_network(model, checkpoint, self.options.device),
            frames=frames,
            positions_m=self.source.positions_m,
            dose_scale=dose.scale,
            batch=model.fixed_batch or BATCH,
        )
        image = canvas.image()
        quality = dataclasses.asdict(compare(image, self.reference))
        figures = {name: quality[name] for name in ("ssim", "ssim_1px", "pearson", "pearson_1px", "covered")}
        told = {"frames": len(frames), "dose_scale": dose.scale, "dose_from": dose.source}
        return {"model": model.sha256, **told, **figures}, image


def _beside(judgement: _Judgement, path: str, checkpoint: str | None) -> dict[str, Any] | None:
    """The previous model's figures; None if it cannot be judged, which does not matter for the live one."""
    try:
        return judgement.of(path, checkpoint)[0]
    except PtychostreamError as error:
        _log.warning("the previous model cannot be judged: %s", error)
        return None


def _evenly(source: Source, most: int | None) -> np.ndarray[Any, np.dtype[np.intp]]:
    """At most this many frames with a known position, evenly over the scan."""
    frames = source.selected
    if most is None or len(frames) <= most:
        return frames
    return frames[np.unique(np.linspace(0, len(frames) - 1, most).round().astype(np.intp))]


def _finished(path: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The result in the folder, if it is for the same arguments."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["result"]) if content["asked"] == asked else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
