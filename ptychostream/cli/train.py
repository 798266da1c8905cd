"""`ptychostream train`: a network from reconstructed scans."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.cli import finite
from ptychostream.cli.parts.scan_arguments import add_scan_arguments

if TYPE_CHECKING:
    from rich.console import Console

    from ptychostream.hpc_agent.corpus.training_data import Source, Split
    from ptychostream.hpc_agent.training.model_job import TrainedModel

OPTIONS = ("network", "epochs", "batch", "schedule", "simulated", "precision", "device", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ptychostream.hpc_agent.training.architectures import NETWORK_NAMES

    parser.add_argument("scans", type=Path, nargs="+", metavar="scan", help="scan files of one geometry")
    parser.add_argument(
        "--reconstruction",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="their reconstructions, in the same order",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the model file (ONNX)")
    parser.add_argument("--name", default="", help="of the model (default: the network's and the first scan's)")
    parser.add_argument("--warm-start", type=Path, metavar="FILE", help="checkpoint (.pt) to start from")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw the losses by epoch")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")
    recipe = parser.add_argument_group("recipe")
    recipe.add_argument("--network", choices=NETWORK_NAMES, help="default ptychonn2")
    recipe.add_argument("--epochs", type=int, metavar="N", help="default 50")
    recipe.add_argument("--batch", type=int, metavar="N", help="default 16")
    recipe.add_argument("--lr", type=finite, metavar="RATE", help="highest learning rate (default 1e-3)")
    recipe.add_argument("--schedule", choices=("cyclic", "onecycle"), help="of the learning rate (default cyclic)")
    recipe.add_argument("--time-limit", type=finite, metavar="S", help="hurry through the schedule in this time")
    recipe.add_argument("--precision", choices=("auto", "float32", "bfloat16"), help="default auto")
    recipe.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 … (default: CUDA where there is one)")
    recipe.add_argument("--simulated", type=finite, metavar="RATIO", help="simulated pairs for each measured one")
    recipe.add_argument("--seed", type=int, metavar="N", help="default 0")
    held = parser.add_argument_group("held-out area", "an area of each scan that training never sees")
    held.add_argument("--hold-out", type=finite, default=0.0, metavar="FRACTION", help="of the frames (default none)")
    held.add_argument("--side", choices=("+x", "-x", "+y", "-y"), default="+x", help="where (default +x): --side=-x")
    held.add_argument("--save-area", type=Path, metavar="NPY", help="write the first scan's, on its object's grid")
    frames = parser.add_argument_group("frames", "what is done to them before the network, here and at the edge")
    frames.add_argument("--crop", type=int, nargs=4, metavar=("ROW", "COLUMN", "HEIGHT", "WIDTH"), help="raw pixels")
    frames.add_argument("--bin", type=int, metavar="N", help="sum N × N pixels")
    add_scan_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from contextlib import ExitStack

    from rich.console import Console

    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.errors import TrainingError
    from ptychostream.reconstruct.soundness import SoundnessLimits, undetermined
    from ptychostream.scans.reconstruction_file import read_reconstruction
    from ptychostream.scans.scan_probe import open_probed
    from ptychostream.storage.atomic import check_can_be_written

    check_can_be_written(arguments.output, arguments.figure, arguments.save_area)
    console = Console(stderr=arguments.json, highlight=False)
    if len(arguments.scans) != len(arguments.reconstruction):
        what = f"{len(arguments.scans)} scans, {len(arguments.reconstruction)} reconstructions"
        raise TrainingError(what, where="command line", remedy="give one for each scan, in the same order")
    reconstructions = [read_reconstruction(path) for path in arguments.reconstruction]
    for path, made in zip(arguments.reconstruction, reconstructions, strict=True):
        if reason := undetermined(made, SoundnessLimits()):
            raise TrainingError(reason, where=str(path), remedy="it makes no labels: reconstruct the scan again")
    with ExitStack() as stack:
        scans = [stack.enter_context(open_probed(path, scan_options(arguments))) for path in arguments.scans]
        trained, sources, splits = _train(list(zip(scans, reconstructions, strict=True)), arguments, console)
    if arguments.save_area:
        _save_area(arguments.save_area, sources[0], trained)
    if arguments.figure:
        from ptychostream.quality.figures import save_figure, training_figure

        save_figure(training_figure(trained.result.history), arguments.figure)
    summary = _summary(trained, splits)
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        _say(console, summary)
    return 0


def _train(
    pairs: list[tuple[Any, Any]], arguments: argparse.Namespace, console: Console
) -> tuple[TrainedModel, list[Source], list[Split]]:
    from ptychostream.cli.parts.progress import Told
    from ptychostream.config import load_settings
    from ptychostream.hpc_agent.corpus.training_data import Source, default_preprocessing
    from ptychostream.hpc_agent.training.model_job import patch_shape, train_model
    from ptychostream.hpc_agent.training.training import Epoch, TrainingOptions

    values = {name: getattr(arguments, name) for name in OPTIONS}
    values |= {"learning_rate": arguments.lr, "time_limit_s": arguments.time_limit}
    options = load_settings(TrainingOptions, None, values)
    preprocessing = default_preprocessing([scan for scan, _ in pairs])
    given = {"crop": tuple(arguments.crop) if arguments.crop else None, "bin": arguments.bin}
    preprocessing = preprocessing.model_copy(update={key: value for key, value in given.items() if value})
    shape = patch_shape(Source(*pairs[0]), preprocessing)
    sources, splits = [], []
    for scan, reconstruction in pairs:
        source, split = _split(scan, reconstruction, max(shape), arguments)
        sources.append(source)
        splits.append(split)
    with Told(console, "reading patterns and labels", options.epochs) as progress:

        def on_epoch(epoch: Epoch) -> None:
            text = f"loss {epoch.training_loss:.4f}, validation {epoch.validation_loss:.4f}"
            progress.update(epoch.number, text)

        trained = train_model(
            sources,
            arguments.output,
            options,
            name=arguments.name,
            output_shape=shape,
            preprocessing=preprocessing,
            warm_start=arguments.warm_start,
            on_epoch=on_epoch,
        )
    return trained, sources, splits


def _split(scan: Any, reconstruction: Any, size: int, arguments: argparse.Namespace) -> tuple[Source, Split]:
    import numpy as np

    from ptychostream.hpc_agent.corpus.training_data import Source, Split, label_extent_m, spatial_split

    whole = Source(scan, reconstruction)
    none = np.arange(0)
    if not arguments.hold_out:
        return whole, Split(train=whole.selected, held_out=none, gap=none)
    extent = label_extent_m(size, reconstruction.pixel_m)
    split = spatial_split(whole.positions_m, extent, arguments.hold_out, arguments.side)
    return Source(scan, reconstruction, split.train, np.union1d(split.held_out, split.gap)), split


def _save_area(path: Path, source: Source, trained: TrainedModel) -> None:
    import numpy as np

    from ptychostream.errors import TrainingError
    from ptychostream.hpc_agent.corpus.training_data import held_out_area
    from ptychostream.storage.atomic import atomic_path

    positions = source.positions_m[source.selected]
    area = held_out_area(source.reconstruction, positions, max(trained.contract.output_shape))
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, area)
    except OSError as error:
        what = f"cannot be written: {error.strerror or error}"
        raise TrainingError(what, where=str(path), remedy="give a folder that can be written") from error


def _summary(trained: TrainedModel, splits: list[Split]) -> dict[str, Any]:
    from ptychostream.model.preprocessing import bad_pixels

    result, contract = trained.result, trained.contract
    return {
        "model": str(trained.path),
        "sha256": trained.sha256,
        "checkpoint": str(trained.checkpoint),
        "name": contract.name,
        "network": contract.network,
        "parameters": result.network.parameter_count(),
        "input_shape": contract.input_shape,
        "output_shape": contract.output_shape,
        "training_frames": contract.training.frames,
        "heldout_frames": sum(len(split.held_out) for split in splits),
        "gap_frames": sum(len(split.gap) for split in splits),
        "frames_left_out": trained.left_out,
        "bad_pixels": bad_pixels(contract.preprocessing),
        "saturation": contract.preprocessing.saturation,
        "epochs": len(result.history),
        "best_epoch": result.best.number,
        "training_loss": result.best.training_loss,
        "validation_loss": result.best.validation_loss,
        "seconds": result.history[-1].seconds,
        "interrupted": result.interrupted,
        "sigma": contract.sigma.model_dump() if contract.sigma is not None else None,
        "held_out": [asdict(quality) for quality in trained.held_out],
    }


def _say(console: Console, summary: dict[str, Any]) -> None:
    if summary["interrupted"]:
        console.print("interrupted: the best epoch so far is kept")
    console.print(
        f"{summary['name']}: {summary['parameters']:,} parameters, {summary['training_frames']} frames, "
        f"best of {summary['epochs']} epochs: {summary['best_epoch']}, validation {summary['validation_loss']:.4f}, "
        f"{summary['seconds']:.0f} s → {summary['model']}"
    )
    if summary["bad_pixels"] or summary["frames_left_out"]:
        console.print(
            f"no measurement: {summary['bad_pixels']} pixels, {summary['frames_left_out']} frames, which were left out"
        )
    for quality in summary["held_out"]:
        console.print(
            f"on the area that training never saw: r = {quality['pearson']:.3f}, SSIM = {quality['ssim']:.3f}, "
            f"{quality['ssim_1px']:.3f} at one pixel's resolution"
        )
    if summary["sigma"]:
        sigma = summary["sigma"]
        console.print(
            f"error of the phase there, from the spread s of n patches: "
            f"σ² = s² / n + ({sigma['factor']:.2f} s)² + ({sigma['floor_rad']:.3f} rad)²"
        )
        if sigma["within_1_sigma"] is not None:
            one, two = (100 * sigma[f"within_{n}_sigma"] for n in (1, 2))
            console.print(f"where this was not fitted, {one:.0f} % of the pixels lie within σ, {two:.0f} % within 2 σ")
