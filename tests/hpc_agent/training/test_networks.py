"""The networks are those that were published, and normalise raw counts themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.corpus.normalisation import Normalisation
from ptychostream.hpc_agent.training.architectures import NETWORK_NAMES
from ptychostream.hpc_agent.training.networks import make_network


@pytest.mark.parametrize(
    ("name", "parameters"), [("ptychonn2", 733_921), ("ptychonn", 4_694_690), ("swiftnn", 728_976)]
)
def test_parameter_counts_are_the_published_ones(name: str, parameters: int) -> None:
    assert make_network(name).parameter_count() == parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORK_NAMES)
@pytest.mark.parametrize(("shape", "reduction"), [((32, 64), 1), ((64, 32), 2)])
def test_output_shapes_and_ranges(name: str, shape: tuple[int, int], reduction: int) -> None:
    network = make_network(name, reduction).eval()
    with torch.no_grad():
        out = network(torch.poisson(torch.full((3, 1, *shape), 1e4)))
    assert tuple(out) == network.heads
    for output in out.values():
        assert output.shape == (3, 1, *network.output_shape(shape))
        assert output.dtype == torch.float32
    assert out["phase"].abs().max() <= math.pi
    if "amplitude" in out:
        assert out["amplitude"].min() >= 0
        assert out["amplitude"].max() <= 1


@pytest.mark.parametrize(
    ("name", "reduction", "message"), [("resnet", 1, "unknown network 'resnet'"), ("ptychonn2", 3, "reduction 3")]
)
def test_what_there_is_not_is_refused(name: str, reduction: int, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        make_network(name, reduction)


def test_shapes_that_four_levels_do_not_divide_are_refused() -> None:
    with pytest.raises(TrainingError, match="40×32"):
        make_network("ptychonn2").output_shape((40, 32))


def test_normalisation_is_applied_to_the_counts_and_kept_with_the_weights() -> None:
    torch.manual_seed(0)
    plain, scaled = make_network("ptychonn2").eval(), make_network("ptychonn2").eval()
    scaled.load_state_dict(plain.state_dict())
    scaled.set_normalisation(Normalisation(scale=0.01, gain=2.0, offset=-0.5))
    counts = torch.poisson(torch.full((1, 1, 16, 16), 100.0))
    seen: list[torch.Tensor] = []
    scaled.encoder[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        scaled(counts)
    np.testing.assert_allclose(seen[0].numpy(), 2 * np.sqrt(0.01 * counts.numpy()) - 0.5, rtol=1e-5, atol=1e-6)
    again = make_network("ptychonn2")
    again.load_state_dict(scaled.state_dict())
    assert again.normalisation.tolist() == pytest.approx([0.01, 2.0, -0.5])


@pytest.mark.slow
def test_dose_scale_multiplies_the_counts() -> None:
    network = make_network("ptychonn2").eval()
    counts = torch.poisson(torch.full((1, 1, 16, 16), 50.0))
    with torch.no_grad():
        torch.testing.assert_close(network(counts, 10.0)["phase"], network(counts * 10)["phase"])
        assert not torch.equal(network(counts, 10.0)["phase"], network(counts)["phase"])


def test_each_convolution_but_the_last_is_followed_by_batch_normalisation() -> None:
    network = make_network("ptychonn")
    kinds = [type(module) for module in network.modules()]
    heads = len(network.heads)
    assert kinds.count(nn.Conv2d) - heads == kinds.count(nn.BatchNorm2d) == 8 + 8 * heads
