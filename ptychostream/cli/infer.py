"""`ptychostream infer`: a scan file through a model, offline."""

from __future__ import annotations

import argparse
import json
import time
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.cli import finite
from ptychostream.cli.parts import length_m
from ptychostream.cli.parts.scan_arguments import add_scan_arguments

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ptychostream.imaging.phase_image import PhaseImage
    from ptychostream.scans.scan import Scan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path, help="scan file: NeXus (NDFileHDF5), CXI, DECTRIS, npz and others")
    parser.add_argument("model", type=Path, help="model file (ONNX)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="stitched phase (HDF5)")
    parser.add_argument("--engine", default="Auto", metavar="NAME", help="inference engine (default %(default)s)")
    parser.add_argument(
        "--precision", default="auto", metavar="P", help="precision of the engine (default %(default)s)"
    )
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="frames at once (default %(default)s)")
    parser.add_argument("--dose-scale", type=finite, default=1.0, metavar="X", help="multiply the counts by this")
    parser.add_argument(
        "--area",
        nargs=4,
        type=length_m,
        metavar=("X", "Y", "X", "Y"),
        help="only frames in this box: two opposite corners, in metres or with a unit (5um)",
    )
    parser.add_argument(
        "--other-geometry",
        action="store_true",
        help="go on where the scan's energy, distance, pixel or region is not that of the model",
    )
    parser.add_argument("--reference", type=Path, metavar="FILE", help="reconstruction to compare with")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the stitched phase, and the reference")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")
    add_scan_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ptychostream.cli.parts.progress import Told
    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.imaging.sigma import phase_sigma
    from ptychostream.model.model_file import check_golden, load_model
    from ptychostream.plugins.engines import create_engine
    from ptychostream.quality.contract_check import contradictions
    from ptychostream.quality.offline_inference import Unmeasured, stitch_scan
    from ptychostream.scans.inspection import taken
    from ptychostream.scans.phase_file import write_phase_image
    from ptychostream.scans.reconstruction_file import read_reconstruction
    from ptychostream.scans.scan_probe import open_probed
    from ptychostream.storage.atomic import check_can_be_written

    check_can_be_written(arguments.output, arguments.figure)
    console = Console(stderr=arguments.json)
    model = load_model(arguments.model)
    reference = read_reconstruction(arguments.reference).phase_image() if arguments.reference else None
    with open_probed(arguments.scan, scan_options(arguments)) as scan:
        for contradiction in contradictions(scan, model.contract, str(arguments.model)):
            if not arguments.other_geometry:
                raise contradiction.error(str(arguments.scan))
            console.print(f"in spite of this: {contradiction}", markup=False)
        frames = None if arguments.area is None else frames_within(scan, arguments.area)
        number = len(scan) if frames is None else len(frames)
        engine = create_engine(arguments.engine, model, batch=arguments.batch, precision=arguments.precision)
        try:
            check_golden(model.contract, engine.infer)
            began = time.perf_counter()
            unmeasured: list[Unmeasured] = []
            with Told(console, "inferring", number) as progress:
                canvas = stitch_scan(
                    scan,
                    model.contract,
                    engine.infer,
                    frames=frames,
                    dose_scale=arguments.dose_scale,
                    batch=engine.batch,
                    spread=True,
                    on_frames=progress.update,
                    on_unmeasured=unmeasured.append,
                )
        finally:
            engine.close()
    image = canvas.image()
    assert image.spread is not None
    calibration = model.contract.sigma
    sigma = phase_sigma(image.spread, calibration.numbers if calibration is not None else None)
    found, left_out = unmeasured[0]
    summary: dict[str, Any] = {
        "output": str(arguments.output),
        "scan": scan.scan_id,
        "frames": number,
        "stitched": canvas.patches,
        "without_position": number - canvas.patches - sum(left_out.values()),
        "frames_left_out": left_out,
        "pixels": found.report(),
        "seconds": time.perf_counter() - began,
        "engine": engine.name,
        "precision": engine.precision,
        "model": model.contract.name,
        "model_sha256": model.sha256,
        "dose_scale": arguments.dose_scale,
        "sigma": {
            "kind": sigma.kind,
            "factor": sigma.factor,
            "floor_rad": sigma.floor_rad,
            "median_rad": sigma.median if isfinite(sigma.median) else None,
        },
        "quality": _compare(image, reference),
        "rules": taken(scan),
    }
    write_phase_image(arguments.output, image, summary, sigma)
    if arguments.figure:
        from ptychostream.quality.figures import save_figure, stitched_figure

        save_figure(stitched_figure(image, reference), arguments.figure)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        _say(console, summary)
    return 0


def frames_within(scan: Scan, box_m: list[float]) -> NDArray[np.intp]:
    """Indices of the frames whose position lies in a box, given by (x, y, x, y) of two opposite corners, metres.

    Raises
    ------
    ConfigError
        There are none.
    """
    import numpy as np

    from ptychostream.errors import ConfigError

    corners = np.sort(np.asarray(box_m).reshape(2, 2), axis=0)
    within = np.flatnonzero(((scan.positions_m >= corners[0]) & (scan.positions_m <= corners[1])).all(axis=1))
    if not len(within):
        low, high = np.nanmin(scan.positions_m, axis=0), np.nanmax(scan.positions_m, axis=0)
        lies = f"the positions lie between ({low[0]:.4g}, {low[1]:.4g}) m and ({high[0]:.4g}, {high[1]:.4g}) m"
        raise ConfigError("no frame lies in the area", where="--area", remedy=lies)
    return within


def _compare(image: PhaseImage, reference: PhaseImage | None) -> dict[str, Any] | None:
    if reference is None:
        return None
    from dataclasses import asdict

    from ptychostream.quality.quality import compare

    return asdict(compare(image, reference))


def _say(console: Any, summary: dict[str, Any]) -> None:
    from ptychostream.frames.survey import in_words

    console.print(
        f"{summary['stitched']} of {summary['frames']} frames stitched in {summary['seconds']:.1f} s "
        f"by {summary['engine']} ({summary['precision']}) → {summary['output']}"
    )
    for text in (text for text in summary["rules"] if "position" in text):
        console.print(text, markup=False)
    if summary["without_position"]:
        console.print(f"{summary['without_position']} frames have no position and were left out")
    for line in in_words(summary["pixels"], summary["frames_left_out"]):
        console.print(line)
    sigma = summary["sigma"]
    if sigma["median_rad"] is not None:
        console.print(f"error of the phase, median: {sigma['median_rad']:.3g} rad ({sigma['kind']})")
    if summary["quality"]:
        quality = summary["quality"]
        console.print(
            f"against the reference: r = {quality['pearson']:.3f}, SSIM = {quality['ssim']:.3f}, "
            f"{quality['ssim_1px']:.3f} at one pixel's resolution, over a range of {quality['range_rad']:.3g} rad"
        )
        if quality["runaways"]:
            console.print(f"{quality['runaways']} pixels of the reference ran away and are not compared")
        if quality["at_limit"]:
            console.print("the image is shifted beyond what is looked for: the figures are too low")
