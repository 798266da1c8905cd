"""A model for `bench stream` when none is given: the speed of a network does not depend on what it has learned."""

from __future__ import annotations

from pathlib import Path

from ptychostream.contract import ModelContract


def write_random_model(path: Path, shape: tuple[int, int], name: str = "ptychonn2") -> Path:
    """Export the network `name` with random weights for frames of `shape` (square)."""
    from ptychostream.benchmarks.inference import patterns, random_network
    from ptychostream.hpc_agent.export import export

    network = random_network(name, shape[0])
    contract = ModelContract(
        name=f"{name}-random", network=name, input_shape=shape, output_shape=shape, object_pixel_m=1e-8
    )
    export(network, contract, patterns(4, shape[0]), path)
    return path
