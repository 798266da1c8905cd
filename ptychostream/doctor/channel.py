"""What a live channel of images says of itself, what is assumed, and what contradicts.

The channel is asked once for all that its newest image says, then some frames are received as the IOC receives them.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from p4p import Value
from p4p.client.thread import Context

from ptychostream.doctor.finding import Level
from ptychostream.doctor.frames import check_shape
from ptychostream.doctor.servers import searched
from ptychostream.doctor.stream import SeenFrame, SeenStream, watch
from ptychostream.errors import DropCause, PtychostreamError, StreamError
from ptychostream.frames.frame_ids import FrameIds
from ptychostream.frames.frame_settings import FrameSettings
from ptychostream.model.contract import ModelContract
from ptychostream.statements.as_json import contradiction_json, error_json, statement_json
from ptychostream.statements.description import Contradiction, Description
from ptychostream.statements.driver_names import region_name

_FIELDS = ("uniqueId", "value", "dimension", "codec", "attribute", "dataTimeStamp")
_DAY_S = 86_400.0
_EPICS_S = 631_152_000.0
"""The EPICS epoch, 1990, in POSIX seconds."""


@dataclass(frozen=True)
class StreamFigures:
    """The size of what came.

    Attributes
    ----------
    frames, seconds, rate_hz
        Frames that came, the time that they took, and their rate; None for fewer than two.
    height, width, pixel_type, codec
        Of the latest frame; the codec is empty where nothing is compressed.
    first_id, last_id, missed
        uniqueId of the first and the latest frame, and how many are missing between.
    scans
        Scan ids, in order.
    unwanted, refused
        Frames of another kind than the selected one; updates that are no frames.
    held
        Whether the only image is one that the server held before.
    """

    frames: int
    seconds: float
    rate_hz: float | None
    height: int
    width: int
    pixel_type: str
    codec: str
    first_id: int
    last_id: int
    missed: int
    scans: list[str]
    unwanted: int
    refused: int
    held: bool


@dataclass(frozen=True)
class ChannelInspection:
    """The result of `inspect_channel`.

    Attributes
    ----------
    said
        All statements, also those that are assumed.
    contradictions
        Statements that cannot be true together.
    error
        Why the channel cannot be used, if a contradiction is not the reason.
    stream
        None where no image came.
    """

    channel: str
    said: Description
    contradictions: list[Contradiction]
    error: PtychostreamError | None
    stream: StreamFigures | None

    @property
    def sound(self) -> bool:
        """Whether nothing contradicts and the frames can be used."""
        return not self.contradictions and self.error is None

    def as_json(self) -> dict[str, Any]:
        """The same as values of JSON."""
        return {
            "channel": self.channel,
            "sound": self.sound,
            "stream": None if self.stream is None else asdict(self.stream),
            "statements": [statement_json(statement) for statement in self.said],
            "contradictions": [contradiction_json(found) for found in self.contradictions],
            "error": error_json(self.error),
        }


def inspect_channel(
    channel: str,
    settings: FrameSettings,
    scan_attribute: str,
    contract: ModelContract | None = None,
    *,
    frames: int = 20,
    seconds: float = 3.0,
) -> ChannelInspection:
    """Read what a channel says of its frames, until `frames` have come or for `seconds`.

    Parameters
    ----------
    settings
        Which frames are wanted, the attribute of the energy, and what is given of the region.
    scan_attribute
        NTAttribute that names the scan.
    contract
        Of the model that the frames are compared with; None: with none.

    A channel that does not answer or has no images gives `error`.
    """
    nothing = Description(channel)
    try:
        newest = _ask(channel, max(seconds, 1.0))
    except StreamError as error:
        return ChannelInspection(channel, nothing, [], error, None)
    names = tuple(str(one["name"]) for one in newest["attribute"])
    intake = settings.intake(scan_attribute, "", names, contract.said() if contract is not None else None)
    seen = watch(channel, intake, seconds, frames)
    if not seen.wanted:
        return ChannelInspection(channel, nothing, [], _no_image(seen), None)
    said = _described(seen, scan_attribute)
    found = [*said.contradictions(), *seen.contradictions]
    return ChannelInspection(channel, said, found, _error(seen, contract), _figures(seen, str(newest["codec.name"])))


def _ask(channel: str, timeout_s: float) -> Value:
    """The channel's newest image. Raises StreamError: nobody answers, or it is no image."""
    with Context("pva", nt=False) as context:
        answer = context.get(channel, timeout=timeout_s, throw=False)
    if isinstance(answer, TimeoutError):
        remedy = "correct the name, start the detector's PVA plugin, or put its host into EPICS_PVA_ADDR_LIST"
        raise StreamError(
            f"no such channel: nobody answers (searched {searched(os.environ)})", where=channel, remedy=remedy
        )
    remedy = "name the channel of a detector's PVA plugin, such as 13SIM1:Pva1:Image"
    if not isinstance(answer, Value):
        raise StreamError(f"the channel cannot be read: {answer}", where=channel, remedy=remedy)
    missing = [name for name in _FIELDS if name not in answer]
    if missing:
        kind = answer.getID() or "structure"
        raise StreamError(f"not an NTNDArray: it is {kind}, without {', '.join(missing)}", where=channel, remedy=remedy)
    return answer


def _no_image(seen: SeenStream) -> PtychostreamError:
    if seen.refused:
        return seen.refused[0]
    if seen.images:
        what = f"none of {len(seen.images)} frames is of the wanted kind"
        return StreamError(what, where=seen.channel, remedy="correct --select-attribute and --select-value")
    what = seen.refusal or f"no image came within {seen.seconds:g} s"
    return StreamError(what, where=seen.channel, remedy="start an acquisition, and inspect again")


def _error(seen: SeenStream, contract: ModelContract | None) -> PtychostreamError | None:
    """Why frames would be dropped though they contradict nothing."""
    if seen.refused:
        return seen.refused[0]
    shape = check_shape(seen, contract)
    return StreamError(shape.what, where=seen.channel, remedy=shape.remedy) if shape.level is Level.FAIL else None


def _described(seen: SeenStream, scan_attribute: str) -> Description:
    frames, latest = seen.wanted, seen.wanted[-1]
    said = Description(seen.channel, seen.said)
    for name in sorted({name for frame in frames for name in frame.attributes}):
        _state_driver(said, name, [frame.attributes[name] for frame in frames if name in frame.attributes])
    for axis in "xy":
        for quantity, value in (("binning", 1), ("reverse", False)):
            if not said.about(f"{quantity}_{axis}"):
                said.assume(f"{quantity}_{axis}", value, "neither the dimensions nor an attribute say it")
    said.state("first_id", frames[0].raw_id, "uniqueId")
    said.state("scan_id", latest.scan or None, f"attribute {scan_attribute}")
    _state_epoch(said, seen.frames)
    return said


def _state_driver(said: Description, name: str, values: Sequence[object]) -> None:
    """Add what a driver's attribute says of the region: its first value, and the first that differs."""
    found = region_name(name)
    numbers = [value for value in values if isinstance(value, int | float)]
    if found is None or not numbers:
        return
    quantity, axis = found
    for value in list(dict.fromkeys(numbers))[:2]:
        if quantity != "binning" or value:  # 0: never set
            said.state(f"{quantity}_{axis}", bool(value) if quantity == "reverse" else value, f"attribute {name}")


def _state_epoch(said: Description, frames: Sequence[SeenFrame]) -> None:
    """Add what the time stamps are counted from, as far as it can be told from frames that have just been taken."""
    if not frames:
        return
    if any(frame.time == 0 for frame in frames):
        said.assume("epoch", "POSIX", "frames have no time stamp: the time of their arrival is taken")
        return
    late_s = statistics.median(frame.arrived - frame.time for frame in frames)
    if abs(late_s) < _DAY_S:
        said.state("epoch", "POSIX", "dataTimeStamp")
    elif abs(late_s - _EPICS_S) < _DAY_S:
        said.state("epoch", "EPICS", "dataTimeStamp", "seconds since 1990")
        said.state("epoch", "POSIX", "PV Access", "seconds since 1970")
    else:
        said.state("epoch", "unknown", "dataTimeStamp", f"{abs(late_s):.4g} s from this machine's clock")


def _figures(seen: SeenStream, codec: str) -> StreamFigures:
    images, latest, ids = seen.images, seen.wanted[-1], FrameIds()
    for frame in seen.frames:
        ids.accept(frame.raw_id, frame.time)
    took_s = images[-1].arrived - images[0].arrived
    return StreamFigures(
        frames=len(seen.frames),
        seconds=took_s,
        rate_hz=(len(images) - 1) / took_s if took_s > 0 else None,
        height=latest.shape[0],
        width=latest.shape[1],
        pixel_type=latest.dtype,
        codec=codec,
        first_id=images[0].raw_id,
        last_id=images[-1].raw_id,
        missed=ids.missed,
        scans=list(dict.fromkeys(frame.scan for frame in images if frame.scan)),
        unwanted=sum(frame.fault is DropCause.UNSELECTED for frame in images),
        refused=len(seen.refused),
        held=seen.held is not None,
    )
