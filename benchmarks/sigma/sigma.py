"""`ptychostream bench sigma`: how right the error of the stitched phase is, on an area that the network never saw.

The area is that of `ptychostream train --hold-out … --side …`: give the same values. Factor and floor are found on one
half of it; the parts of the pixels within one and two σ are those of the other half, and the reverse. Then every
second, third and fourth frame is stitched alone, with the calibration from all frames: the error must not be thought
to fall with the number of patches. The stitching weights are tried with the σ of each patch pixel in them. The cost is
that of adding a patch with and without the spread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ptychostream.benchmarks.sigma.sigma_figure import rms_by_spread, sigma_figure
from ptychostream.hpc_agent.corpus.training_data import Source, held_out_area, label_extent_m, spatial_split
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.sigma import sigma
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines import create_engine
from ptychostream.plugins.engines.base import Engine
from ptychostream.quality.figures import save_figure
from ptychostream.quality.offline_inference import stitch_scan
from ptychostream.quality.quality import compare
from ptychostream.quality.sigma_calibration import Errors, calibrate, errors_of
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan_probe import open_probed

THINNED = (1, 2, 3, 4)
"""Of so many frames one is stitched."""
_COST_FRAMES, _COST_TURNS = 64, 15


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path)
    parser.add_argument("model", type=Path, help="trained with --hold-out and --side as here")
    parser.add_argument("--reconstruction", type=Path, required=True, metavar="FILE", help="the scan's")
    parser.add_argument("--hold-out", type=float, default=0.15, help="default %(default)s")
    parser.add_argument("--side", choices=("+x", "-x", "+y", "-y"), default="+x", help="default %(default)s")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw error, σ, and the parts within k σ")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    console = Console(stderr=True)
    model, reconstruction = load_model(arguments.model), read_reconstruction(arguments.reconstruction)
    contract, reference = model.contract, reconstruction.phase_image()
    with open_probed(arguments.scan) as scan:
        source = Source(scan, reconstruction)
        extent_m = label_extent_m(max(contract.output_shape), reconstruction.pixel_m)
        split = spatial_split(source.positions_m, extent_m, arguments.hold_out, arguments.side)
        area = held_out_area(reconstruction, source.positions_m[split.train], max(contract.output_shape))
        engine = create_engine("Auto", model, batch=8, precision="float32")
        kept: list[NDArray[np.float32]] = []

        def infer(counts: NDArray[np.float32], dose_scale: float) -> NDArray[np.float32]:
            kept.append(engine.infer(counts, dose_scale).copy())
            return kept[-1]

        def patches(frames: NDArray[np.intp]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
            kept.clear()
            stitch_scan(scan, contract, infer, frames=frames, positions_m=source.positions_m)
            return np.concatenate(kept), source.positions_m[frames]

        try:
            unseen = patches(source.placed(np.union1d(split.held_out, split.gap)))
            trained = patches(source.placed(split.train))
            costs = cost(contract, contract.weight(), engine)
        finally:
            engine.close()
    weight = contract.weight()
    images = {n: stitched(contract, weight, unseen[0][n // 2 :: n], unseen[1][n // 2 :: n]) for n in THINNED}
    side_px = max(contract.output_shape)
    errors = {n: errors_of(image, reference, area, side_px) for n, image in images.items()}
    result: dict[str, Any] = {
        "scan": scan.scan_id,
        "model": contract.name,
        "frames": len(unseen[0]),
        "calibration": described(errors[1]),
        "thinned": {},
        "by_spread": deciles(errors[1]),
        "weights": weights_trial(contract, weight, unseen, trained, reference, area),
        "microseconds_a_patch": costs,
    }
    numbers = result["calibration"]["factor"], result["calibration"]["floor_rad"]
    for n, one in errors.items():
        result["thinned"][f"1/{n}"] = {
            "pixels": one.error.size,
            "patches_median": float(np.median(one.number)),
            "error_rms_rad": float(np.sqrt(np.mean(one.error**2))),
            "sigma_median_rad": float(np.median(sigma(one.single, one.number, *numbers))),
            "spread_over_root_n_rad": float(np.sqrt(np.mean(one.single**2 / one.number))),
            "within_1_sigma": one.within(*numbers, 1),
            "within_2_sigma": one.within(*numbers, 2),
        }
    if arguments.figure:
        save_figure(sigma_figure(images[1], reference, area, errors[1], numbers), arguments.figure)
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        console.print_json(json.dumps(result))
    return 0


def stitched(
    contract: ModelContract, weight: NDArray[np.floating], patches: NDArray[np.float32], xy_m: NDArray[np.float64]
) -> PhaseImage:
    """Patches with their spread, by any weight."""
    canvas = Canvas(contract.object_pixel_m, weight, spread=True)
    canvas.add_batch(patches, xy_m)
    return canvas.image()


def described(errors: Errors) -> dict[str, Any]:
    """The calibration, and the parts of the pixels within k σ in the halves that were not used for it."""
    found = calibrate([errors])
    assert found is not None, "the area is too small"
    return found.model_dump()


def deciles(errors: Errors) -> list[dict[str, float]]:
    """Error of the pixels by their spread: a tenth of them in each line."""
    pairs = zip(rms_by_spread(errors, errors.single), rms_by_spread(errors, errors.error), strict=True)
    return [{"spread_rms_rad": spread, "error_rms_rad": error} for spread, error in pairs]


def weights_trial(
    contract: ModelContract,
    weight: NDArray[np.float32],
    unseen: tuple[NDArray[np.float32], NDArray[np.float64]],
    trained: tuple[NDArray[np.float32], NDArray[np.float64]],
    reference: PhaseImage,
    area: NDArray[np.bool_],
) -> dict[str, dict[str, float]]:
    """SSIM with the probe's weight, that divided by the variance of each patch pixel, and its square."""
    variance = pixel_variance(contract, weight, *trained)
    tried = {
        "probe": weight,
        "probe / variance": np.where(variance > 0, weight / np.where(variance > 0, variance, 1), 0),
        "1 / variance": np.where(variance > 0, 1 / np.where(variance > 0, variance, 1), 0),
        "probe squared": weight**2,
    }
    qualities = {name: compare(stitched(contract, one, *unseen), reference, area) for name, one in tried.items()}
    return {name: {"ssim": one.ssim, "ssim_1px": one.ssim_1px} for name, one in qualities.items()}


def pixel_variance(
    contract: ModelContract, weight: NDArray[np.float32], patches: NDArray[np.float32], xy_m: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[h, w] mean square of patch − image for each pixel of a patch: no reference is needed. NaN-free; 0: not known."""
    image = stitched(contract, weight, patches, xy_m)
    h, w = contract.output_shape
    padded = np.pad(image.phase, max(h, w), constant_values=np.nan)
    top, left = image.box.top - max(h, w), image.box.left - max(h, w)
    total, count = np.zeros((h, w)), np.zeros((h, w))
    for patch, (x, y) in zip(patches, xy_m / contract.object_pixel_m, strict=True):
        row, column = round(y) - h // 2 - top, round(x) - w // 2 - left
        difference = patch - padded[row : row + h, column : column + w]
        known = np.isfinite(difference)
        total[known] += difference[known] ** 2
        count += known
    return np.divide(total, count, out=np.zeros((h, w)), where=count > 0)


def cost(contract: ModelContract, weight: NDArray[np.float32], engine: Engine) -> dict[str, float]:
    """Medians of microseconds to infer a patch, and to add it without and with the spread, in turn."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(5.0, (8, *contract.input_shape)).astype(np.float32)
    patches = rng.normal(0, 1, (_COST_FRAMES, *contract.output_shape)).astype(np.float32)
    xy_m = rng.uniform(0, 400, (_COST_FRAMES, 2)) * contract.object_pixel_m
    canvases = {name: Canvas(contract.object_pixel_m, weight, spread=name == "with") for name in ("without", "with")}
    times: dict[str, list[float]] = {name: [] for name in ("infer", *canvases)}
    for turn in range(_COST_TURNS):
        start = time.perf_counter()
        engine.infer(counts, 1.0)
        if turn:
            times["infer"].append(1e6 * (time.perf_counter() - start) / len(counts))
        for name, canvas in canvases.items():
            start = time.perf_counter()
            for first in range(0, _COST_FRAMES, 8):
                canvas.add_batch(patches[first : first + 8], xy_m[first : first + 8])
            if turn:
                times[name].append(1e6 * (time.perf_counter() - start) / _COST_FRAMES)
    return {name: float(np.median(taken)) for name, taken in times.items()}
