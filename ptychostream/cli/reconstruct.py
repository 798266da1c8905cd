"""`ptychostream reconstruct`: object and probe from a scan file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptychostream.cli import finite
from ptychostream.cli.parts import reconstruction_words
from ptychostream.cli.parts.scan_arguments import add_scan_arguments

if TYPE_CHECKING:
    from rich.console import Console

    from ptychostream.hpc_agent.reconstruct import ReconstructOptions
    from ptychostream.quality.frc import RingCorrelation
    from ptychostream.scans.scan import Reconstruction, Scan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scan", type=Path, help="scan file: NeXus (NDFileHDF5), CXI, DECTRIS, npz and others")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the reconstruction (HDF5)")
    parser.add_argument("--initial", type=Path, metavar="FILE", help="reconstruction of this scan to start from")
    parser.add_argument("--figure", type=Path, metavar="PNG", help="draw object, probe and errors")
    parser.add_argument("--mask-figure", type=Path, metavar="PNG", help="draw the pixels that are no measurement")
    parser.add_argument(
        "--frc", action="store_true", help="resolution by Fourier ring correlation: reconstruct both halves, too"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")
    method = parser.add_argument_group("method")
    method.add_argument("--iterations", type=int, metavar="N", help="passes over all positions (default 30)")
    method.add_argument("--modes", type=int, metavar="N", help="incoherent probe modes (default 1)")
    method.add_argument("--engine", choices=("auto", "epie", "torch", "ptychi"), help="default auto")
    method.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 … (default auto)")
    method.add_argument("--batch", type=int, metavar="N", help="positions at once, torch and ptychi (default 16)")
    method.add_argument(
        "--object-step", type=finite, metavar="X", help="ePIE's alpha (default: 0.5, less for sparse frames)"
    )
    method.add_argument("--probe-step", type=finite, metavar="X", help="ePIE's beta (default 0.1)")
    method.add_argument("--momentum", type=finite, metavar="X", help="of the object, by mPIE; epie engine (default 0)")
    method.add_argument("--probe-start", type=int, metavar="N", help="iterations before the probe follows (default 1)")
    method.add_argument(
        "--defocus-m", type=finite, metavar="M", help="defocus of the initial probe if the file has none"
    )
    method.add_argument(
        "--propagator", choices=("far-field", "fresnel"), help="fresnel: the detector is close behind the sample"
    )
    method.add_argument(
        "--magnification", type=finite, metavar="M", help="of a cone beam, for fresnel (default 1: a parallel beam)"
    )
    method.add_argument("--threads", type=int, metavar="N", help="threads of the epie engine (default 1)")
    method.add_argument(
        "--correct-positions",
        choices=("none", "global", "each", "both"),
        help="by one scale, rotation and shear for all, each by itself, or both (default none)",
    )
    method.add_argument("--seed", type=int, metavar="N", help="seed of the order of the positions (default 0)")
    frames = parser.add_argument_group("frames", "what is taken of them, as in train")
    frames.add_argument("--crop", type=int, nargs=4, metavar=("ROW", "COLUMN", "HEIGHT", "WIDTH"), help="raw pixels")
    frames.add_argument("--bin", type=int, metavar="N", help="sum N × N pixels")
    add_scan_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    from ptychostream.cli.parts.scan_arguments import scan_options
    from ptychostream.config import load_settings
    from ptychostream.frames.survey import in_words
    from ptychostream.hpc_agent.reconstruct import ReconstructOptions
    from ptychostream.reconstruct import overlap, positions
    from ptychostream.scans.inspection import taken
    from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
    from ptychostream.scans.scan_probe import open_probed
    from ptychostream.statements.units import length_in_words
    from ptychostream.storage.atomic import check_can_be_written

    check_can_be_written(arguments.output, arguments.figure, arguments.mask_figure)
    console = Console(stderr=arguments.json, highlight=False)
    names = (
        "iterations", "engine", "device", "batch", "object_step", "probe_step", "probe_start", "momentum",
        "defocus_m",
        "correct_positions", "threads", "seed", "propagator", "magnification", "crop", "bin",
    )  # fmt: skip
    values = {name: getattr(arguments, name) for name in names} | {"probe_modes": arguments.modes}
    options = load_settings(ReconstructOptions, None, values)
    initial = read_reconstruction(arguments.initial) if arguments.initial else None
    with open_probed(arguments.scan, scan_options(arguments)) as scan:
        if arguments.mask_figure:
            from ptychostream.frames.survey import survey
            from ptychostream.quality.figures import save_figure
            from ptychostream.quality.mask_figure import mask_figure

            save_figure(mask_figure(survey(scan), scan.scan_id), arguments.mask_figure)
        reconstruction, complete = _reconstruct(scan, options, initial, console)
        rings = _halves(scan, options, reconstruction, console) if arguments.frc and complete else None
    write_reconstruction(arguments.output, reconstruction)
    if arguments.figure:
        from ptychostream.quality.figures import reconstruction_figure, save_figure

        save_figure(reconstruction_figure(reconstruction), arguments.figure)
    summary = _summary(reconstruction, arguments.output, complete) | {"rules": taken(scan)}
    if rings is not None:
        summary["frc"] = {"resolution_m": rings.resolution_m, "at_limit": rings.at_limit}
    elif arguments.frc and complete:
        summary["frc"] = None
    if arguments.json:
        print(json.dumps(summary, indent=2))
    else:
        stopped = "" if complete else f", stopped after {summary['iterations']} of {options.iterations} iterations"
        console.print(
            f"{arguments.output}: R factor {reconstruction.r_factor:.4f} ({reconstruction.engine}), "
            f"overlap of the illumination {summary['overlap']:.0%}{stopped}"
        )
        for line in reconstruction_words.in_words(reconstruction):
            console.print(line)
        if summary["not_explained"]:
            console.print(f"[bold]not sound[/bold]: {summary['not_explained']}")
        if summary["positions"]:
            console.print(positions.in_words(summary["positions"], reconstruction.pixel_m))
        frames = {"dark": summary["frames_without_counts"], "too bright": summary["frames_too_bright"]}
        for line in (*in_words(summary["pixels"], frames), overlap.in_words(summary["overlap"])):
            if line:
                console.print(line)
        if rings is not None:
            least = "at least " if rings.at_limit else ""
            console.print(
                f"resolution {least}{length_in_words(rings.resolution_m, 3)} by Fourier ring correlation (half bit)"
            )
        elif arguments.frc and complete:
            console.print(
                "resolution unknown: every second frame alone does not overlap enough, or in too small an area"
            )
        for text in (text for text in summary["rules"] if "position" in text):
            console.print(text, markup=False)
    return 0 if complete else 130


def _reconstruct(
    scan: Scan, options: ReconstructOptions, initial: Reconstruction | None, console: Console
) -> tuple[Reconstruction, bool]:
    """The reconstruction, and whether it did all iterations. The first Ctrl-C stops it and keeps the result so far."""
    from ptychostream.cli.parts.progress import Told
    from ptychostream.hpc_agent.reconstruct import reconstruct
    from ptychostream.processes.stopping import stop_on_signals

    with stop_on_signals() as stop, Told(console, "reading patterns", options.iterations) as progress:

        def on_iteration(iteration: int, r_factor: float) -> bool:
            progress.update(iteration, f"reconstructing, R {r_factor:.4f}")
            return not stop.is_set()

        reconstruction = reconstruct(
            scan,
            options,
            on_iteration=on_iteration,
            initial_object=None if initial is None else initial.object,
            initial_probe=None if initial is None else initial.probe,
            initial_positions_m=initial.positions_m if initial and options.correct_positions != "none" else None,
        )
    return reconstruction, len(reconstruction.errors) == options.iterations


def _halves(scan: Scan, options: ReconstructOptions, whole: Reconstruction, console: Console) -> RingCorrelation | None:
    """The correlation of two reconstructions, each from every second frame, with the whole's probe and positions.

    None where the frames of a half overlap too little, or both cover too small an area.
    """
    from dataclasses import replace

    import numpy as np

    from ptychostream.errors import GeometryError
    from ptychostream.hpc_agent.reconstruct import reconstruct
    from ptychostream.quality.frc import ring_correlation
    from ptychostream.reconstruct.overlap import COMPARABLE

    images = []
    fixed = options.model_copy(update={"correct_positions": "none"})
    for first in (0, 1):
        console.print(f"reconstructing every second frame, from frame {first}")
        counts = np.stack([scan.counts[index] for index in range(first, len(scan), 2)])
        positions = scan.positions_m.copy()
        if whole.frames is not None:
            positions[whole.frames] = whole.positions_m
        half = replace(scan, counts=counts, positions_m=positions[first::2], frame_ids=None, times=None)
        made = reconstruct(half, fixed, initial_probe=whole.probe)
        if made.provenance["overlap"] < COMPARABLE:
            return None
        images.append(made.phase_image())
    try:
        return ring_correlation(*images)
    except GeometryError:
        return None


def _summary(reconstruction: Reconstruction, output: Path, complete: bool) -> dict[str, Any]:
    from ptychostream.imaging.geometry import wavelength_m
    from ptychostream.reconstruct.soundness import SoundnessLimits, not_explained

    made = reconstruction.provenance
    return {
        "output": str(output),
        "scan_id": reconstruction.scan_id,
        "engine": reconstruction.engine,
        "iterations": len(reconstruction.errors),
        "complete": complete,
        "r_factor": reconstruction.r_factor,
        "errors": [float(error) for error in reconstruction.errors],
        "absolute_r_factor": made["absolute_r_factor"],
        "seconds_per_iteration": made["seconds_per_iteration"],
        "object_shape": list(reconstruction.object.shape),
        "pixel_m": reconstruction.pixel_m,
        "frames_without_counts": made["frames_without_counts"],
        "frames_too_bright": made["frames_too_bright"],
        "pixels": made["pixels"],
        "overlap": made["overlap"],
        **{name: made[name] for name in ("noise_r_factor", "empty_r_factor", "explained", "defocus_m")},
        "object_step": made["options"]["object_step"],
        "centre_off_px": made["centre_off_px"],
        "radiation": made["radiation"],
        "wavelength_m": wavelength_m(made["energy_ev"], made["radiation"]),
        "not_explained": not_explained(reconstruction, SoundnessLimits()),
        "positions": made["positions"],
    }
