"""`ptychostream record`: writes a PVA image stream and its positions to scan files."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ptychostream.cli import finite
from ptychostream.cli.parts.scan_arguments import add_beam_arguments, beam_of
from ptychostream.errors import ConfigError
from ptychostream.statements.units import EnergyUnit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from ptychostream.positions.indexed_positions import IndexedPositions
    from ptychostream.positions.positions import AxisConfig
    from ptychostream.recording.record import Recorded
    from ptychostream.recording.record_settings import PositionFeed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("channel", nargs="?", metavar="CHANNEL", help="PVA channel of the detector's NTNDArrays")
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="file to write; with {scan} or {number} in it one for each scan, such as data/{scan}.h5",
    )
    parser.add_argument("--recover", type=Path, metavar="PARTIAL", help="finish the file of a killed recording")
    parser.add_argument("--raw", action="store_true", help="keep the updates bit for bit, for `replay --raw`")
    parser.add_argument("--frames", type=int, metavar="N", help="stop after N frames")
    parser.add_argument("--scans", type=int, metavar="N", help="stop after N scans; not with --raw")
    parser.add_argument("--seconds", type=finite, metavar="S", help="stop after S seconds")
    parser.add_argument(
        "--timeout", type=finite, metavar="S", help="give up when no frame comes within S seconds; not with --raw"
    )
    parser.add_argument("--json", action="store_true", help="print a summary as JSON; the rest goes to stderr")
    _add_stream(parser.add_argument_group("stream"))
    _add_positions(parser.add_argument_group("positions"))
    _add_metadata(parser.add_argument_group("geometry and metadata", "PVs are of PVA, or of CA with ca:// before them"))


def _add_stream(group: Any) -> None:
    group.add_argument("--codec", help="auto, none, lz4, bslz4, blosc or zlib (default auto: as sent, else bslz4)")
    group.add_argument("--threads", type=int, metavar="N", help="threads that compress (default 2)")
    group.add_argument("--queue-size", type=int, metavar="N", help="frames held on either side (default 2000)")
    group.add_argument("--queue-mb", type=int, metavar="MIB", help="memory for waiting frames (default 256)")
    group.add_argument("--no-check", dest="check", action="store_false", default=None, help="trust compressed frames")
    group.add_argument("--scan-id", metavar="ID", help="scan id of a stream that names none")
    group.add_argument("--scan-attribute", metavar="NAME", help="NTAttribute that names the scan (default ScanID)")
    group.add_argument(
        "--end-attribute", metavar="NAME", help="NTAttribute that marks a scan's last frame (default ScanComplete)"
    )
    group.add_argument("--select-attribute", metavar="NAME", help="NTAttribute that tells the frames that are wanted")
    group.add_argument("--select-value", metavar="VALUE", help="its value in the frames that are wanted")
    group.add_argument(
        "--bit-depth-attribute",
        metavar="NAME",
        help="NTAttribute that gives the detector's bit depth (default BitDepth)",
    )
    group.add_argument("--attribute", action="append", metavar="NAME", help="a further number to keep; may be repeated")


def _add_positions(group: Any) -> None:
    group.add_argument(
        "--positions",
        choices=("attributes", "waveform", "stream", "index", "panda", "route", "none"),
        default="attributes",
        help="where they come from (default %(default)s)",
    )
    group.add_argument("--x", default="", metavar="NAME", help="attribute (default PositionX) or waveform PV of x")
    group.add_argument("--y", default="", metavar="NAME", help="attribute (default PositionY) or waveform PV of y")
    group.add_argument("--route", type=Path, metavar="FILE", help="CSV or HDF5 file of the positions")
    group.add_argument("--position-pv", metavar="PV", help="PVA channel of (time, x, y), or of (index, x, y)")
    group.add_argument(
        "--position-columns", nargs=3, metavar="NAME", help="its columns (default time x y, or index x y)"
    )
    group.add_argument("--position-time-unit", choices=("s", "ms", "us", "ns"), help="unit of its times (default s)")
    group.add_argument("--panda-host", metavar="HOST", help="name or address of a PandABox; --x and --y are its fields")
    group.add_argument("--panda-ports", nargs=2, type=int, metavar="PORT", help="of commands and data (8888 8889)")
    group.add_argument("--samples-per-frame", type=int, metavar="N", help="samples by index of each frame (default 1)")
    group.add_argument("--frames-per-arm", type=int, metavar="N", help="of a scan with several arms, such as its lines")
    group.add_argument("--clock-offset", metavar="S", help="its clock minus the detector's, or auto (default 0)")
    group.add_argument(
        "--tolerance", type=finite, metavar="S", help="largest gap between samples around a frame (default 0.02)"
    )
    group.add_argument(
        "--first-id", type=int, metavar="ID", help="frame id of the first position (default: that of the first frame)"
    )
    group.add_argument("--position-unit", choices=("m", "mm", "um", "nm"), default="m", help="(default %(default)s)")
    group.add_argument("--swap-xy", action="store_true", help="the stream's x is the canvas's y")
    group.add_argument("--flip-x", action="store_true", help="reverse the x axis (after the swap)")
    group.add_argument("--flip-y", action="store_true", help="reverse the y axis (after the swap)")
    group.add_argument(
        "--position-rotation", type=finite, default=0.0, metavar="DEG", help="turn from x towards y (after the flips)"
    )
    group.add_argument(
        "--position-wait", type=finite, metavar="S", help="wait for late positions at a scan's end (default 5)"
    )


def _add_metadata(group: Any) -> None:
    add_beam_arguments(group)
    group.add_argument("--energy-pv", metavar="PV", help="read it from here as a scan begins")
    group.add_argument("--energy-unit", choices=get_args(EnergyUnit), help="unit of that PV (default eV)")
    group.add_argument("--distance-m", type=finite, metavar="M", help="sample to detector")
    group.add_argument("--distance-pv", metavar="PV", help="read it from here as a scan begins")
    group.add_argument("--distance-unit", choices=("m", "mm"), help="unit of that PV (default m)")
    group.add_argument("--detector-pixel-m", type=finite, metavar="M", help="detector pixel")
    group.add_argument(
        "--mrad-per-pixel", type=finite, metavar="MRAD", help="angle of a pixel of the pattern, instead of the distance"
    )
    group.add_argument("--pv", action="append", default=[], metavar="NAME=PV", help="a further value; may be repeated")


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console

    say = Console(file=sys.stderr if arguments.json else sys.stdout, soft_wrap=True, highlight=False)
    if arguments.recover is not None:
        return _recover(arguments, say)
    if not arguments.channel or not arguments.file:
        raise ConfigError("CHANNEL and FILE are missing", where="record", remedy="ptychostream record CHANNEL FILE")
    return _record_raw(arguments, say) if arguments.raw else _record(arguments, say)


def _recover(arguments: argparse.Namespace, say: Console) -> int:
    from ptychostream.scans.scan_recording import recover

    path, frames = recover(arguments.recover)
    say.print(f"{path}: {frames} frames")
    if arguments.json:
        print(json.dumps({"file": str(path), "frames": frames}))
    return 0


def _record(arguments: argparse.Namespace, say: Console) -> int:
    from ptychostream.cli.parts.record_progress import RecordProgress
    from ptychostream.config import load_settings
    from ptychostream.processes.stopping import stop_on_signals
    from ptychostream.recording.record import record
    from ptychostream.recording.record_settings import RecordSettings

    settings = load_settings(RecordSettings, None, _values(arguments))
    feed = _feed(arguments)
    with stop_on_signals() as stop, RecordProgress(arguments.channel) as progress:
        recorded = record(arguments.channel, arguments.file, settings, stop, feed, progress.update, progress.scan)
    _say(recorded, say)
    if arguments.json:
        print(json.dumps(_summary(arguments.channel, recorded)))
    if recorded.error is not None:
        raise recorded.error
    return 0 if recorded.counts.lost == 0 else 1


def _record_raw(arguments: argparse.Namespace, say: Console) -> int:
    from ptychostream.config import load_settings
    from ptychostream.processes.stopping import stop_on_signals
    from ptychostream.recording.raw_record import RawRecordSettings, record_raw

    for option, value in (("--timeout", arguments.timeout), ("--scans", arguments.scans)):
        if value is not None:
            raise ConfigError("--raw does not know it", where=option, remedy="end by --seconds, --frames or Ctrl-C")
    values = {"frames": arguments.frames, "seconds": arguments.seconds, "queue_size": arguments.queue_size}
    settings = load_settings(RawRecordSettings, None, values)
    say.print(f"{arguments.channel} is waited for and recorded; Ctrl-C ends it")
    with stop_on_signals() as stop:
        recorded = record_raw(arguments.channel, Path(arguments.file), settings, stop)
    say.print(f"{arguments.file}: {recorded.updates} updates in {recorded.seconds:.2f} s")
    if not recorded.connections:
        say.print(f"nothing was recorded: no server had {arguments.channel}; is the name right, EPICS_PVA_ADDR_LIST?")
    if recorded.overruns:
        say.print(
            f"{recorded.overruns} of them stand for more than one: a queue was full; {recorded.missed} are missing"
        )
    if recorded.connections > 1:
        say.print(f"the channel was away {recorded.connections - 1} times")
    if arguments.json:
        print(json.dumps({"channel": arguments.channel, "file": arguments.file, **asdict(recorded)}))
    return 1 if recorded.missed or not recorded.connections else 0


def _values(arguments: argparse.Namespace) -> dict[str, object]:
    """`RecordSettings` by dotted key; None where not given."""
    pvs = {}
    for pair in arguments.pv:
        name, equals, pv = pair.partition("=")
        if not (name and equals and pv):
            raise ConfigError(f"{pair!r} is not NAME=PV", where="--pv", remedy="such as --pv temperature=bl:T")
        pvs[name] = pv
    energy_ev, radiation = beam_of(arguments)
    of_attributes = arguments.positions == "attributes"
    return {
        "queue_size": arguments.queue_size,
        "queue_mb": arguments.queue_mb,
        "scan_attribute": arguments.scan_attribute,
        "scan_id": arguments.scan_id,
        "end_attribute": arguments.end_attribute,
        "select_attribute": arguments.select_attribute,
        "select_value": arguments.select_value,
        "bit_depth_attribute": arguments.bit_depth_attribute,
        "position_attributes": _axes_names(arguments) if of_attributes else None,
        "attributes": arguments.attribute,
        "codec": arguments.codec,
        "threads": arguments.threads,
        "check": arguments.check,
        "position_wait_s": arguments.position_wait,
        "frames": arguments.frames,
        "scans": arguments.scans,
        "seconds": arguments.seconds,
        "timeout_s": arguments.timeout,
        "metadata.radiation": radiation,
        "metadata.energy_ev": energy_ev,
        "metadata.energy_pv": arguments.energy_pv,
        "metadata.energy_unit": arguments.energy_unit,
        "metadata.distance_m": arguments.distance_m,
        "metadata.distance_pv": arguments.distance_pv,
        "metadata.distance_unit": arguments.distance_unit,
        "metadata.detector_pixel_m": arguments.detector_pixel_m,
        "metadata.pattern_pixel_rad": None if arguments.mrad_per_pixel is None else arguments.mrad_per_pixel * 1e-3,
        "metadata.pvs": pvs,
    }


def _axes_names(arguments: argparse.Namespace) -> tuple[str, str]:
    return arguments.x or "PositionX", arguments.y or "PositionY"


def _axes(arguments: argparse.Namespace) -> AxisConfig:
    from ptychostream.positions.positions import AxisConfig

    return AxisConfig(
        unit=arguments.position_unit,
        swap_xy=arguments.swap_xy,
        sign_x=-1 if arguments.flip_x else 1,
        sign_y=-1 if arguments.flip_y else 1,
        rotation_deg=arguments.position_rotation,
    )


def _feed(arguments: argparse.Namespace) -> PositionFeed | None:
    from ptychostream.positions.positions import AttributePositions, RoutePositions
    from ptychostream.recording.record_positions import WaveformMonitor
    from ptychostream.recording.record_settings import StillPositions

    axes = _axes(arguments)
    if arguments.positions == "attributes":
        return StillPositions(AttributePositions(*_axes_names(arguments), axes))
    if arguments.positions == "waveform":
        if not arguments.x or not arguments.y:
            raise ConfigError("no PVs", where="--positions waveform", remedy="name them with --x and --y")
        return WaveformMonitor(arguments.x, arguments.y, axes, arguments.first_id)
    if arguments.positions == "stream":
        return _sample_feed(arguments, axes)
    if arguments.positions == "index":
        return _index_feed(arguments, axes)
    if arguments.positions == "panda":
        return _panda_feed(arguments, axes)
    if arguments.positions == "route":
        if arguments.route is None:
            raise ConfigError("no file", where="--positions route", remedy="name it with --route")
        return StillPositions(RoutePositions(arguments.route, axes, arguments.first_id))
    return None


def _sample_feed(arguments: argparse.Namespace, axes: AxisConfig) -> PositionFeed:
    from ptychostream.config import load_settings
    from ptychostream.plugins.position_receiver import PositionReceiver, PositionReceiverSettings
    from ptychostream.positions.position_stream import StreamPositions, StreamPositionSettings
    from ptychostream.recording.record_positions import SampleFeed

    if not arguments.position_pv:
        raise ConfigError("no PV", where="--positions stream", remedy="name it with --position-pv")
    values: dict[str, object] = {"tolerance_s": arguments.tolerance}
    if arguments.clock_offset == "auto":
        values["clock_offset_mode"] = "Auto"
    else:
        values["clock_offset_s"] = arguments.clock_offset
    source = StreamPositions(load_settings(StreamPositionSettings, None, values), axes)
    channel = {
        "channel": arguments.position_pv,
        "columns": arguments.position_columns,
        "time_unit": arguments.position_time_unit,
        "unit": axes.unit,
    }
    reader = load_settings(PositionReceiverSettings, None, channel)

    def take(samples: NDArray[np.float64], arrived: float) -> None:
        times, x, y = samples
        source.update(times, x, y, arrived)

    return SampleFeed(source, lambda sink, on_bad: PositionReceiver(reader, sink, on_bad), take)


def _by_index(arguments: argparse.Namespace, axes: AxisConfig) -> IndexedPositions:
    from ptychostream.config import load_settings
    from ptychostream.positions.indexed_positions import IndexedPositions, IndexPositionSettings

    values = {
        "samples_per_frame": arguments.samples_per_frame,
        "frames_per_arm": arguments.frames_per_arm,
        "first_frame_id": arguments.first_id,
    }
    return IndexedPositions(load_settings(IndexPositionSettings, None, values), axes)


def _index_feed(arguments: argparse.Namespace, axes: AxisConfig) -> PositionFeed:
    from ptychostream.config import load_settings
    from ptychostream.plugins.position_receiver import IndexReceiver, IndexReceiverSettings
    from ptychostream.pva.indexed_update import IndexedUpdate
    from ptychostream.recording.record_positions import SampleFeed

    if not arguments.position_pv:
        raise ConfigError("no PV", where="--positions index", remedy="name it with --position-pv")
    source = _by_index(arguments, axes)
    channel = {"channel": arguments.position_pv, "columns": arguments.position_columns, "unit": axes.unit}
    reader = load_settings(IndexReceiverSettings, None, channel)

    def take(update: IndexedUpdate, arrived: float) -> None:
        source.update(*update, arrived)

    return SampleFeed(source, lambda sink, on_bad: IndexReceiver(reader, sink, on_bad), take)


def _panda_feed(arguments: argparse.Namespace, axes: AxisConfig) -> PositionFeed:
    from ptychostream.config import load_settings
    from ptychostream.panda.messages import Ended
    from ptychostream.panda.placing import Heard, ended_badly, in_metres, open_reader, tell
    from ptychostream.panda.settings import PandaSettings
    from ptychostream.recording.record_positions import SampleFeed

    if not arguments.panda_host:
        raise ConfigError("no box", where="--positions panda", remedy="name it with --panda-host")
    ports = arguments.panda_ports or (None, None)
    values = {"host": arguments.panda_host, "control_port": ports[0], "data_port": ports[1]}
    fields = {"x": arguments.x or None, "y": arguments.y or None}
    box = load_settings(PandaSettings, None, {**values, **fields})
    source = _by_index(arguments, in_metres(axes))

    def take(heard: Heard, arrived: float) -> None:
        tell(source, heard, arrived)
        if isinstance(heard, Ended) and (problem := ended_badly(heard)) is not None:
            raise problem  # the feed counts and tells it

    return SampleFeed(source, lambda sink, on_bad: open_reader(box, sink, on_bad, "--positions panda"), take)


def _say(recorded: Recorded, say: Console) -> None:
    for file in recorded.files:
        left = "" if file.finished else ", cut off: `ptychostream record --recover` finishes it"
        say.print(f"{file.path}: {file.frames} frames{left}")
    counts = recorded.counts
    if not recorded.files:
        say.print("nothing was recorded")
    for number, what in (
        *((number, f"dropped as {cause.value}") for cause, number in counts.dropped.items()),
        (counts.missed, "missed: lost before they came here"),
        (counts.unwritten, "not written"),
        (counts.without_position, "without a position"),
        (counts.equal_times, "with the time stamp of the frame before"),
    ):
        if number:
            say.print(f"{number} frames {what}")
    if counts.held:
        say.print(f"{counts.held} images not recorded: the detector held them since before the recording")


def _summary(channel: str, recorded: Recorded) -> dict[str, Any]:
    counts = recorded.counts
    return {
        "channel": channel,
        "received": counts.received,
        "written": counts.written,
        "missed": counts.missed,
        "dropped": {cause.value: number for cause, number in counts.dropped.items()},
        "beyond": counts.beyond,
        "unwritten": counts.unwritten,
        "without_position": counts.without_position,
        "held": counts.held,
        "equal_times": counts.equal_times,
        "lost": counts.lost,
        "seconds": recorded.seconds,
        "files": [{**asdict(file), "path": str(file.path)} for file in recorded.files],
        "error": str(recorded.error) if recorded.error else None,
    }
