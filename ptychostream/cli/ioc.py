"""`ptychostream ioc`: the soft IOC beside the detector."""

from __future__ import annotations

import argparse
from pathlib import Path

OPTIONS: tuple[tuple[str, str, str], ...] = (
    # option, configuration key, help
    ("--prefix", "prefix", "what every record name begins with (ptycho:NN1:)"),
    ("--input-pv", "input.pv", "PVA channel of the detector's NTNDArrays"),
    ("--scan-attribute", "input.scan_attribute", "NTNDArray attribute that names the scan (ScanID)"),
    ("--end-attribute", "input.end_attribute", "NTNDArray attribute, not 0 in a scan's last frame (ScanComplete)"),
    ("--model", "model.file", "model file (.onnx) to start with"),
    ("--models-dir", "model.directory", "folder that every model must lie in"),
    ("--model-key-file", "model.key_file", "file with the key that pushed models must be signed with"),
    ("--engine", "engine.name", "Auto, TensorRT, TorchCUDA, OpenVINO, ONNXRuntime, Torch or None"),
    ("--precision", "engine.precision", "auto, float32, tf32, bfloat16, float16 or int8"),
    ("--engine-cache", "engine.cache_dir", "folder that keeps built engines"),
    ("--threads", "engine.threads", "processor cores of a CPU engine"),
    ("--frame-shape", "engine.frame_shape", "HxW of a frame, for engine None without a model (128x128)"),
    ("--pixel-size", "engine.pixel_m", "canvas pixel in metres, for engine None without a model (10e-9)"),
    ("--batch", "pipeline.batch", "frames inferred at once"),
    ("--max-latency", "pipeline.max_latency_s", "seconds a frame may wait for its batch"),
    ("--queue-size", "pipeline.queue_size", "frames that may wait for the engine"),
    ("--when-full", "pipeline.when_full", "which frame gives way when they are more: drop_newest or drop_oldest"),
    ("--decimation", "pipeline.decimation.mode", "Off, Manual or Auto: patterns left out, evenly over the sample"),
    ("--decimation-factor", "pipeline.decimation.factor", "patterns of which one is inferred, for Manual (2)"),
    ("--position-source", "positions.source", "attributes, waveform, route or stream"),
    ("--position-pv", "positions.stream.pv", "PVA channel of a stream of (time, x, y)"),
    ("--clock-offset-mode", "positions.stream.clock_offset_mode", "Manual, or Auto: estimated"),
    ("--clock-offset", "positions.stream.clock_offset_s", "position clock - detector clock, seconds"),
    ("--x-attribute", "positions.x_attribute", "NTNDArray attribute that holds x"),
    ("--y-attribute", "positions.y_attribute", "NTNDArray attribute that holds y"),
    ("--position-unit", "positions.axes.unit", "unit of the positions: m, mm, um or nm"),
    ("--route-file", "positions.route_file", "route file (CSV, HDF5) with positions"),
    ("--first-id", "positions.first_id", "frame id of the first position of a waveform or route"),
    ("--scan-active-pv", "scan.active_pv", "PV that is not 0 while a scan runs"),
    ("--scan-active-provider", "scan.active_provider", "ca or pva"),
    ("--scan-boundary", "scan.boundary", "what tells scans apart: attribute, pv or gap (attribute)"),
    ("--scan-id-pv", "scan.id_pv", "PV that names the scan, for --scan-boundary pv"),
    ("--scan-gap", "scan.gap_s", "seconds between frame times that part two scans, for --scan-boundary gap (5)"),
    ("--late-frames", "scan.late", "frames of a scan that is over: stitch or drop (stitch)"),
    ("--keep-canvases", "scan.keep", "finished canvases that are kept (4)"),
    ("--save-directory", "save.directory", "folder of saved canvases"),
    ("--save-automatic", "save.automatic", "yes: save every scan when it ends"),
    ("--scan-frames", "scan.frames", "frames expected in a scan"),
    ("--dose-scale", "dose_scale", "factor on the counts for the network"),
    ("--phase-rate", "phase_rate_hz", "images served per second, at most"),
    ("--ssim-reference", "ssim_reference", "reconstruction file to compare the canvas with"),
    ("--autosave", "autosave", "file that keeps the setpoints over a restart"),
    ("--access-file", "access.file", "access security file of the site's"),
)
_NAMES = {"engine.name": ("Auto", "TensorRT", "TorchCUDA", "OpenVINO", "ONNXRuntime", "Torch", "None")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--config", type=Path, metavar="FILE", help="TOML file; the options override it")
    source.add_argument(
        "--cluster", type=Path, metavar="FILE", help="be the collector of the cluster that this TOML file describes"
    )
    for option, key, text in OPTIONS:
        parser.add_argument(option, dest=key, metavar=key.rpartition(".")[2].upper(), help=text)


def overrides(arguments: argparse.Namespace) -> dict[str, object]:
    """What the command line gave, by dotted key; engine names in any case, shapes as HxW."""
    found: dict[str, object] = {}
    for _, key, _ in OPTIONS:
        value = getattr(arguments, key)
        if value is None:
            continue
        if key in _NAMES:
            value = next((name for name in _NAMES[key] if name.lower() == value.lower()), value)
        elif key == "engine.frame_shape":
            value = value.lower().split("x")
        elif key == "positions.source":
            value = value.lower()
        found[key] = value
    return found


def run(arguments: argparse.Namespace) -> int:
    from ptychostream.config import load_settings
    from ptychostream.ioc.app import run as serve
    from ptychostream.ioc.config.settings import IocSettings

    given = overrides(arguments)
    if arguments.cluster is not None:
        from ptychostream.cluster.settings import ClusterSettings, dotted

        values = dotted(load_settings(ClusterSettings, arguments.cluster, {}).ioc_values())
        return serve(load_settings(IocSettings, None, {**values, **given}), given.keys())
    return serve(load_settings(IocSettings, arguments.config, given), given.keys())
