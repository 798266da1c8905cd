"""`model adopt`: a network without a contract runs offline as the same network with one does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from training_scans import small_scan

from ptychostream.benchmarks.inference import random_model
from ptychostream.cli.main import main
from ptychostream.errors import ModelError
from ptychostream.model.model_file import check_golden, load_model
from ptychostream.plugins.engines import create_engine
from ptychostream.scans.phase_file import read_phase_image
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.slow


def test_a_network_without_contract_is_adopted_and_infers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, truth = small_scan()
    write_scan(tmp_path / "scan.h5", scan)
    write_reconstruction(tmp_path / "truth.h5", truth)
    own = random_model("ptychonn2", 32, tmp_path)
    bare = onnx.ModelProto.FromString(own.data)
    del bare.metadata_props[:]
    dose = next(value for value in bare.graph.input if value.name == "dose_scale")
    bare.graph.input.remove(dose)  # as a constant: a network from elsewhere takes an image and nothing else
    bare.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "dose_scale"))
    onnx.save(bare, tmp_path / "theirs.onnx")
    with pytest.raises(ModelError, match="no model contract"):
        load_model(tmp_path / "theirs.onnx")

    words = ["model", "adopt", str(tmp_path / "theirs.onnx"), str(tmp_path / "scan.h5"), "--json"]
    words += ["-o", str(tmp_path / "adopted.onnx"), "--reconstruction", str(tmp_path / "truth.h5")]
    words += ["--figure", str(tmp_path / "seen.png"), "--name", "theirs"]
    assert main(words) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["name"], summary["patch_weight"]) == ("theirs", "probe")
    assert -1 <= summary["quality"]["ssim"] <= 1
    assert (tmp_path / "seen.png").stat().st_size > 10_000

    model = load_model(tmp_path / "adopted.onnx")
    assert model.contract.object_pixel_m == pytest.approx(truth.pixel_m)
    assert model.contract.golden is not None
    counts = np.asarray(scan.counts[:3], np.float32)
    phases = []
    for each in (own, model):
        engine = create_engine("OpenVINO", each, precision="float32")
        phases.append(engine.infer(counts).copy())
        check_golden(each.contract, engine.infer)
        engine.close()
    np.testing.assert_allclose(phases[1], phases[0], atol=1e-4)
    infer = ["infer", str(tmp_path / "scan.h5"), str(tmp_path / "adopted.onnx"), "-o", str(tmp_path / "phase.h5")]
    assert main(infer) == 0
    assert read_phase_image(tmp_path / "phase.h5").phase.shape[0] > 32


def test_what_cannot_be_adopted_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, _ = small_scan()
    write_scan(tmp_path / "scan.h5", scan)
    (tmp_path / "text.onnx").write_text("no model")
    words = ["model", "adopt", str(tmp_path / "text.onnx"), str(tmp_path / "scan.h5"), "-o", str(tmp_path / "m.onnx")]
    assert main(words) == 2
    assert "not an ONNX model" in capsys.readouterr().err
    assert not (tmp_path / "m.onnx").exists()
