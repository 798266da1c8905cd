"""What is exported does what torch does, on an engine that knows nothing of torch."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import nn

from ptychostream.errors import ModelError
from ptychostream.hpc_agent.corpus.normalisation import Normalisation
from ptychostream.hpc_agent.training.checkpoint import checkpoint_path, load_checkpoint, save_checkpoint
from ptychostream.hpc_agent.training.export import OPSET, build_onnx, export, fold, make_golden, predict
from ptychostream.hpc_agent.training.networks import Network, make_network
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import check_golden, load_model

SHAPE = (32, 64)


def trained(name: str, reduction: int = 1) -> Network:
    """A network whose normalisation layers have seen something, as after training."""
    torch.manual_seed(1)
    network = make_network(name, reduction, Normalisation(0.02, 1.3, -0.7))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.3, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(std=0.3)
    return network.eval()


def counts(frames: int = 3) -> NDArray[np.float32]:
    random = np.random.default_rng(0)
    smooth = gaussian_filter(random.normal(size=(frames, *SHAPE)), (0, 3, 3))
    return random.poisson(50 * np.exp(10 * smooth)).astype(np.float32)


def contract(network: Network) -> ModelContract:
    return ModelContract(
        name="m", input_shape=SHAPE, output_shape=network.output_shape(SHAPE), object_pixel_m=1e-8, network=network.name
    )


def run(data: bytes, frames: NDArray[np.float32], dose: float = 1.0) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    feeds = {"counts": frames[:, None], "dose_scale": np.array([dose], np.float32)}
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "reduction", "dose"),
    [("ptychonn2", 1, 1.0), ("ptychonn2", 2, 10.0), ("ptychonn", 2, 0.5), ("swiftnn", 1, 2.0), ("swiftnn", 2, 1.0)],
)
def test_onnx_runtime_agrees_with_torch(name: str, reduction: int, dose: float) -> None:
    network = trained(name, reduction)
    out = run(build_onnx(network, SHAPE).SerializeToString(), counts(), dose)
    with torch.no_grad():
        expected = network(torch.from_numpy(counts())[:, None], dose)
    assert list(out) == list(expected)
    for head, output in out.items():
        assert output.shape == (3, 1, *network.output_shape(SHAPE))
        assert np.sqrt(np.mean((output - expected[head].numpy()) ** 2)) < 1e-4
        assert output.std() > 0.001  # or the comparison would say nothing


def test_any_batch_size_runs() -> None:
    network = trained("ptychonn2")
    data = build_onnx(network, SHAPE).SerializeToString()
    frames = counts(5)
    whole = run(data, frames)["phase"]
    for i in range(5):
        np.testing.assert_allclose(run(data, frames[i : i + 1])["phase"][0], whole[i], atol=1e-5)


@pytest.mark.slow
def test_folding_is_exact() -> None:
    block = trained("ptychonn2").encoder[1]
    weight, bias = fold(block[0], block[1])
    x = torch.randn(2, weight.shape[1], 9, 9)
    folded = nn.functional.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), padding=1)
    with torch.no_grad():
        torch.testing.assert_close(folded, block[1](block[0](x)), atol=1e-5, rtol=1e-5)


def test_the_graph_has_the_published_parameters_and_an_opset_for_old_engines() -> None:
    network = trained("ptychonn2")
    model = build_onnx(network, SHAPE)
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    assert sum(size for name, size in sizes.items() if name.endswith((".weight", ".bias"))) == 733_921
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert OPSET == 17
    assert not [node.op_type for node in model.graph.node if node.op_type == "BatchNormalization"]


@pytest.mark.slow
def test_the_written_file_holds_contract_and_golden_pair(tmp_path: Path) -> None:
    network = trained("ptychonn2", 2)
    path = tmp_path / "m.onnx"
    sha = export(network, contract(network), counts(2), path)
    model = load_model(path)
    assert model.sha256 == sha
    assert model.contract.parameters == 733_921
    assert model.fixed_batch is None
    rms = check_golden(model.contract, lambda frames, dose: run(model.data, frames, dose)["phase"][:, 0])
    assert rms < 1e-4
    other = trained("ptychonn2", 2)
    nn.init.normal_(other.decoders["phase"].last.weight, std=0.3)
    with pytest.raises(ModelError, match="rad rms"):
        check_golden(model.contract, lambda frames, dose: predict(other, frames, dose))


def test_golden_tolerance_admits_bfloat16_and_no_mirrored_patch() -> None:
    network = trained("ptychonn2", 2)
    golden = make_golden(network, counts(2))
    given = contract(network).model_copy(update={"golden": golden})

    def in_bfloat16(frames: NDArray[np.float32], dose: float) -> NDArray[np.float32]:
        with torch.autocast("cpu", torch.bfloat16):
            return predict(network, frames, dose)

    assert 0 < check_golden(given, in_bfloat16) < golden.tolerance
    with pytest.raises(ModelError):
        check_golden(given, lambda frames, dose: predict(network, frames, dose)[..., ::-1])


def test_golden_counts_are_packed_small_and_exact() -> None:
    golden = make_golden(trained("ptychonn2"), counts(2))
    assert golden.counts.unpack().dtype == np.min_scalar_type(int(counts(2).max()))
    np.testing.assert_array_equal(golden.counts.unpack(), counts(2))
    fractions = make_golden(trained("ptychonn2"), counts(2) + 0.5)
    np.testing.assert_array_equal(fractions.counts.unpack(), counts(2) + 0.5)


def test_a_graph_that_is_not_the_network_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = trained("ptychonn2")
    wrong = copy.deepcopy(network)
    nn.init.normal_(wrong.decoders["phase"].last.weight, std=0.3)
    graph = build_onnx(wrong, SHAPE)
    monkeypatch.setattr("ptychostream.hpc_agent.training.export.build_onnx", lambda *_: graph)
    with pytest.raises(ModelError, match="differs from torch"):
        export(network, contract(network), counts(2), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    network = trained("ptychonn2")
    network.decoders["phase"].last.bias.data.fill_(float("nan"))
    with pytest.raises(ModelError):
        export(network, contract(network), counts(2), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_exporting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    network = trained("ptychonn2")
    first, second = (export(network, contract(network), counts(2), tmp_path / name) for name in ("a.onnx", "b.onnx"))
    assert first == second
    assert onnx.load(tmp_path / "a.onnx").producer_name == "ptychostream"


@pytest.mark.slow
def test_a_checkpoint_reads_back(tmp_path: Path) -> None:
    network = trained("ptychonn", 2)
    path = checkpoint_path(tmp_path / "m.onnx")
    save_checkpoint(path, network, "abc")
    again, sha = load_checkpoint(path)
    assert (path.name, sha, again.name, again.reduction) == ("m.pt", "abc", "ptychonn", 2)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
