"""A model is judged at the dose scale that the edge gave it on that scan."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_helpers import stored
from training_scans import small_scan

from ptychostream.frames.frames import Frame
from ptychostream.hpc_agent.edge.judge_dose import EdgeDose, JudgedDose, given, judged_dose
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.steps.judge_step import judge_step
from ptychostream.ioc.images.provenance import provenance
from ptychostream.model.dose import choose_scale
from ptychostream.model.model_file import ModelFile, load_model
from ptychostream.plugins.engines import create_engine
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import Stitched
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions
from ptychostream.quality.offline_inference import first_counts
from ptychostream.quality.quality import compare
from ptychostream.scans.phase_file import save_phase_image
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.slow

A, B = "a" * 64, "b" * 64
WEAK = {"dose": 1e6}  # a tenth of what the stored model was trained at


def at_the_edge(model: ModelFile, automatic: bool, folder: Path) -> tuple[Stitched, Path]:
    """The weak scan through the live path, and the canvas's file."""
    scan = small_scan(**WEAK)[0]
    pipeline = Pipeline(PipelineSettings(batch=16, max_latency_s=5.0), AttributePositions("x", "y"))
    pipeline.scan_dose.automatic = automatic
    pipeline.start()
    try:
        engine = create_engine("ONNXRuntime", model, batch=16, threads=1)
        pipeline.swap_engine(lambda: engine, model.contract).result(60)
        for number, (x_m, y_m) in enumerate(scan.positions_m):
            place = {"x": float(x_m), "y": float(y_m)}
            pipeline.submit(Frame("weak", number, float(number), np.asarray(scan.counts[number]), place))
        pipeline.end_scan("weak").result(60)
        stitched, figures = pipeline.stitched(), pipeline.snapshot().runs[0]
    finally:
        assert pipeline.stop(30)
    assert stitched is not None and stitched.frames == len(scan)
    clocks = {"now": 0.0, "monotonic": 0.0}
    told = provenance(
        stitched, figures, positions={}, boundary=BoundarySettings(), sha_of=lambda _: model.sha256, **clocks
    )
    return stitched, save_phase_image(folder, "weak", stitched.image, told)


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.parametrize("seen", [True, False])
def test_a_scan_at_a_tenth_of_the_counts_is_judged_as_the_edge_shows_it(
    tmp_path: Path, automatic: bool, seen: bool
) -> None:
    """With the canvas's file, and without: by the edge's rule, or what its record says."""
    path = ModelStore(tmp_path / "models").get(stored(tmp_path)).path
    model = load_model(path)
    stitched, canvas = at_the_edge(model, automatic, tmp_path / "canvases")
    assert (stitched.dose_scale == 1.0) != automatic
    scan, truth = small_scan(**WEAK)
    write_scan(tmp_path / "weak.h5", scan)
    write_reconstruction(tmp_path / "truth.h5", replace(truth, errors=np.array([0.01])))
    told = EdgeDose(automatic, stitched.dose_scale, str(canvas)) if seen else EdgeDose(automatic, 1.0)
    what: dict[str, Any] = {"reconstruction": str(tmp_path / "truth.h5"), "model": str(path)}
    where = {"scan": str(tmp_path / "weak.h5"), "scan_options": {}, "key": "weak", "folder": str(tmp_path / "weak")}
    judged = judge_step(**where, **what, dose=asdict(told), options={"device": "cpu"})
    assert judged["dose_from"] == ("canvas" if seen else "counts" if automatic else "record")
    assert judged["dose_scale"] == pytest.approx(stitched.dose_scale, rel=1e-6)
    shown = compare(stitched.image, truth.phase_image())
    assert judged["ssim_1px"] == pytest.approx(shown.ssim_1px, abs=1e-3)
    other = judge_step(**where, **what, options={"device": "cpu", "dose_scale": 1.0 if automatic else 10.0})
    assert other["dose_from"] == "option"
    assert abs(other["ssim_1px"] - shown.ssim_1px) > 0.01, "the scale makes a difference"


def test_the_order_of_what_decides() -> None:
    counts = [100.0]
    for edge, fixed, wanted in (
        (EdgeDose(True, 3.0), 2.0, JudgedDose(2.0, "option")),
        (EdgeDose(True, 3.0), None, JudgedDose(10.0, "counts")),
        (EdgeDose(None, 3.0), None, JudgedDose(10.0, "counts")),
        (EdgeDose(False, 3.0), None, JudgedDose(3.0, "record")),
        (EdgeDose(False), None, JudgedDose(1.0, "nothing")),
        (EdgeDose(True, 3.0, "/no/such/canvas.h5"), None, JudgedDose(10.0, "counts")),
    ):
        assert judged_dose(A, 1000.0, edge, lambda: counts, fixed) == wanted
    for trained in (None, 0.0):  # a model that does not say at what counts it was trained
        assert judged_dose(A, trained, EdgeDose(True, 3.0), lambda: counts) == JudgedDose(3.0, "record")
    assert judged_dose(A, 1000.0, EdgeDose(True, 3.0), list) == JudgedDose(3.0, "record")
    assert choose_scale([1.0], 1e9) == 1e5


def maker(sha256: str, low: float, high: float) -> dict[str, Any]:
    return {"sha256": sha256, "dose_scale": [low, high]}


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([maker(A, 2.0, 5.0)], 4.0),  # its first patches came at another scale
        ([maker(A, 3.0, 3.0), maker(B, 4.0, 4.0)], 3.0),
        ([maker(A, 3.0, 5.0), maker(B, 4.0, 4.0)], None),
        ([maker(B, 4.0, 4.0)], None),
        ([{"sha256": A}], None),
        ([maker(A, 2.0, 5.0), {"name": "of an edge that writes otherwise"}], None),
        (None, None),
    ],
)
def test_what_the_canvas_says_of_a_model(models: list[dict[str, Any]] | None, expected: float | None) -> None:
    assert given({"models": models, "dose_scale": 4.0}, A) == expected
    assert given({}, A) is None


def test_frames_without_counts_do_not_set_the_dose(tmp_path: Path) -> None:
    path = ModelStore(tmp_path / "models").get(stored(tmp_path)).path
    contract = load_model(path).contract
    scan = small_scan()[0]
    frames = np.arange(len(scan))
    dark = replace(scan, counts=np.concatenate([np.zeros_like(scan.counts[:20]), np.asarray(scan.counts[20:])]))
    assert first_counts(dark, contract, frames) == first_counts(scan, contract, frames[20:36])
    assert len(first_counts(scan, contract, frames)) == 16
    assert len(first_counts(scan, contract, frames[:5])) == 5
