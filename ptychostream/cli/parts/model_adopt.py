"""`ptychostream model adopt`: a contract for a network that was trained elsewhere."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.cli.parts import finite
from ptychostream.cli.parts.scan_arguments import add_scan_arguments

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from ptychostream.model.contract import GoldenPair, ModelContract, Preprocessing
    from ptychostream.model.model_file import ModelFile
    from ptychostream.plugins.engines import Engine
    from ptychostream.scans.scan import Reconstruction, Scan

GOLDEN_FRAMES = 2


def add_adopt(actions: Any) -> None:
    """Add the action `adopt` of `ptychostream model`."""
    adopt = actions.add_parser("adopt", help="make a model of a network that was trained elsewhere (ONNX)")
    adopt.add_argument("model", type=Path, help="the network's ONNX file")
    adopt.add_argument("scan", type=Path, help="a scan of the beam that it was trained for: geometry and golden pair")
    adopt.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the model file (ONNX)")
    adopt.add_argument("--name", default="", help="of the model (default: the file's)")
    adopt.add_argument(
        "--reconstruction", type=Path, metavar="FILE", help="of the scan: weight and probe, and the SSIM is printed"
    )
    adopt.add_argument("--figure", type=Path, metavar="PNG", help="draw the scan as the model sees it")
    adopt.add_argument("--object-pixel-m", type=finite, metavar="M", help="of the output (default: from the geometry)")
    adopt.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")
    before = adopt.add_argument_group("before the network", "what its training script did to the counts, in this order")
    before.add_argument("--crop", type=int, nargs=4, metavar=("ROW", "COLUMN", "HEIGHT", "WIDTH"), help="raw pixels")
    before.add_argument("--bin", type=int, default=1, metavar="N", help="sum N × N pixels")
    before.add_argument("--rot90", type=int, choices=range(4), default=0, help="quarter turns, counter-clockwise")
    before.add_argument("--flip-lr", action="store_true", help="turn the columns round")
    before.add_argument("--flip-ud", action="store_true", help="turn the rows round")
    before.add_argument("--threshold", type=finite, default=0.0, metavar="COUNTS", help="fewer counts become 0")
    before.add_argument("--function", choices=("none", "sqrt", "log1p", "log10"), default="none", help="of the counts")
    before.add_argument("--mean", type=finite, default=0.0, metavar="X", help="is subtracted")
    before.add_argument("--deviation", type=finite, default=1.0, metavar="X", help="divides")
    after = adopt.add_argument_group("after the network")
    after.add_argument("--output-name", default="", metavar="NAME", help="of the graph's output that is the phase")
    after.add_argument("--channel", type=int, metavar="N", help="of that output, from 0, if it has several")
    after.add_argument("--factor", type=finite, default=1.0, metavar="RAD", help="radians for a unit of the output")
    add_scan_arguments(adopt, pixel_flag="--scan-object-pixel-m")


def adopt_model(arguments: argparse.Namespace) -> int:
    """Write the model. With a reconstruction or a figure the scan is inferred, too, and it is said how it looks.

    Raises
    ------
    PtychostreamError
        The network cannot be adopted, or scan or reconstruction cannot be used.
    """
    from rich.console import Console

    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.model.model_file import write_model
    from ptychostream.plugins.engines import create_engine
    from ptychostream.quality.offline_inference import stitch_scan
    from ptychostream.quality.quality import compare
    from ptychostream.scans.reconstruction_file import read_reconstruction
    from ptychostream.scans.scan_probe import open_probed
    from ptychostream.storage.atomic import check_can_be_written

    check_can_be_written(arguments.output, arguments.figure)
    console = Console(stderr=arguments.json)
    reconstruction = read_reconstruction(arguments.reconstruction) if arguments.reconstruction else None
    reference = reconstruction.phase_image() if reconstruction is not None else None
    with open_probed(arguments.scan, scan_options(arguments)) as scan:
        model, counts = _prepared(arguments, scan, reconstruction)
        engine = create_engine("ONNXRuntime", model, precision="float32")
        try:
            contract = model.contract.model_copy(update={"golden": _golden(engine, counts)})
            looked_at = reference is not None or arguments.figure
            image = stitch_scan(scan, contract, engine.infer, batch=engine.batch).image() if looked_at else None
        finally:
            engine.close()
    quality = compare(image, reference) if image is not None and reference is not None else None
    sha256 = write_model(arguments.output, model.parsed, contract)
    if image is not None and arguments.figure:
        from ptychostream.quality.figures import save_figure, stitched_figure

        save_figure(stitched_figure(image, reference), arguments.figure)
    summary: dict[str, Any] = {
        "output": str(arguments.output),
        "sha256": sha256,
        "name": contract.name,
        "input_shape": contract.input_shape,
        "output_shape": contract.output_shape,
        "object_pixel_m": contract.object_pixel_m,
        "parameters": contract.parameters,
        "patch_weight": "probe" if contract.patch_weight else "even",
        "quality": asdict(quality) if quality else None,
    }
    if arguments.json:
        print(json.dumps(summary, indent=2))
        return 0
    height, width = contract.output_shape
    console.print(
        f"{contract.name}: {contract.parameters:,} parameters, patches of {height}×{width} pixels of "
        f"{contract.object_pixel_m * 1e9:.4g} nm → {arguments.output}"
    )
    if quality is None:
        console.print("no reconstruction was given: all pixels of a patch weigh the same, and nothing was compared")
    else:
        console.print(
            f"{scan.scan_id} through it: r = {quality.pearson:.3f}, SSIM = {quality.ssim:.3f}. "
            "Far below what its authors say: try --flip-lr, --flip-ud, --rot90, the function and the mean"
        )
    return 0


def _prepared(
    arguments: argparse.Namespace, scan: Scan, reconstruction: Reconstruction | None
) -> tuple[ModelFile, NDArray[np.float32]]:
    """The model without golden pair, which is written nowhere yet, and the frames [n, H, W] for that pair."""
    import numpy as np

    from ptychostream.hpc_agent.corpus.training_data import default_preprocessing, read_counts
    from ptychostream.model.adoption import Preparation, adopt_graph, read_graph
    from ptychostream.model.model_file import parse_model, with_contract

    crop = tuple(arguments.crop) if arguments.crop else None
    turned = {name: getattr(arguments, name) for name in ("bin", "rot90", "flip_lr", "flip_ud")}
    spec = default_preprocessing([scan]).model_copy(update={"crop": crop, **turned})
    frames = np.linspace(0, len(scan) - 1, min(GOLDEN_FRAMES, len(scan)) + 2)[1:-1].astype(np.intp)
    counts = read_counts(scan, frames, spec).astype(np.float32)
    preparation = Preparation(
        input_shape=(counts.shape[1], counts.shape[2]),
        threshold=arguments.threshold,
        function=arguments.function,
        mean=arguments.mean,
        deviation=arguments.deviation,
        output=arguments.output_name,
        channel=arguments.channel,
        factor=arguments.factor,
    )
    foreign = read_graph(arguments.model)
    graph = adopt_graph(foreign, preparation, str(arguments.model))
    contract = _contract(arguments, scan, reconstruction, graph, spec)
    return parse_model(with_contract(graph, contract), Path(arguments.output)), counts


def _contract(
    arguments: argparse.Namespace,
    scan: Scan,
    reconstruction: Reconstruction | None,
    graph: onnx.ModelProto,
    spec: Preprocessing,
) -> ModelContract:
    from datetime import datetime, timezone

    import numpy as np
    from onnx import numpy_helper

    from ptychostream.imaging.geometry import object_pixel_m
    from ptychostream.imaging.probe_weight import probe_weight
    from ptychostream.model.contract import ModelContract, PackedArray, Training
    from ptychostream.quality.contract_check import region_of

    width = spec.crop[3] if spec.crop else scan.counts.shape[2]
    pixel = arguments.object_pixel_m or object_pixel_m(
        scan.energy_ev, scan.distance_m, scan.detector_pixel_m, width, scan.radiation
    )
    height, width = (side.dim_value for side in graph.graph.output[0].type.tensor_type.shape.dim[2:])
    weight = None
    if reconstruction is not None:
        ratio = pixel / reconstruction.pixel_m
        weight = PackedArray.pack(probe_weight(reconstruction.probe, (height, width), pixel_ratio=ratio))
    sizes = [numpy_helper.to_array(tensor).size for tensor in graph.graph.initializer if len(tensor.dims) > 0]
    counts_shape = graph.graph.input[0].type.tensor_type.shape.dim[2:]
    return ModelContract(
        name=arguments.name or Path(arguments.model).stem,
        network="adopted",
        input_shape=(counts_shape[0].dim_value, counts_shape[1].dim_value),
        output_shape=(height, width),
        object_pixel_m=pixel,
        radiation=scan.radiation,
        energy_ev=scan.energy_ev,
        distance_m=scan.distance_m,
        detector_pixel_m=scan.detector_pixel_m,
        region=region_of(scan),
        preprocessing=spec,
        patch_weight=weight,
        parameters=int(np.sum(sizes)),
        training=Training(created=datetime.now(timezone.utc).isoformat(timespec="seconds")),
    )


def _golden(engine: Engine, counts: NDArray[np.float32]) -> GoldenPair:
    """The frames, and what the network makes of them in float32, frame by frame as `check_golden` asks."""
    import numpy as np

    from ptychostream.model.contract import GoldenPair

    return GoldenPair.of(counts, np.concatenate([engine.infer(counts[i : i + 1]).copy() for i in range(len(counts))]))
