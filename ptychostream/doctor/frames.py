"""The frames of a stream: can they be used, do they fit the model, do all of them come?"""

from __future__ import annotations

from collections.abc import Iterator

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.doctor.stream import SeenStream
from ptychostream.errors import PtychostreamError
from ptychostream.frames.frame_ids import FrameIds
from ptychostream.model.contract import ModelContract
from ptychostream.model.preprocessing import Preprocessor

_BAD_SHARE = 0.01


def check_frames(seen: SeenStream, contract: ModelContract | None) -> Iterator[Finding]:
    """The findings of a stream that is connected."""
    if seen.refused:
        count, came = len(seen.refused), len(seen.refused) + len(seen.frames)
        error = seen.refused[0]
        yield fail("updates", f"{count} of {came} updates of {seen.channel} are no frames: {error.what}", error.remedy)
    if not seen.frames:
        if not seen.refused:
            what = f"no image of {seen.channel} came within {seen.seconds:g} s"
            yield warn("images", what, "start an acquisition, and call doctor again")
        return
    yield _shape(seen, contract)
    if not seen.live:
        frame = seen.frames[0]
        what = f"{seen.channel} holds its last image, uniqueId {frame.raw_id}, {seen.began - frame.time:.0f} s old"
        yield warn("images", f"{what}; nothing is acquired now", "start an acquisition, and call doctor again")
        return
    yield _rate(seen)
    yield _gaps(seen)


def _shape(seen: SeenStream, contract: ModelContract | None) -> Finding:
    shapes = sorted({(frame.shape, frame.dtype) for frame in seen.frames})
    told = " and ".join(f"{height} × {width} {dtype}" for (height, width), dtype in shapes)
    if len(shapes) > 1:
        return fail("frame", f"frames of {told} by turns", "let one plugin send to this channel, with one region")
    (shape, dtype), *_ = shapes
    if contract is None:
        return ok("frame", told)
    try:
        made = Preprocessor(contract.preprocessing, shape, dtype).output_shape
    except PtychostreamError as error:
        return fail("frame", f"{told} does not fit model {contract.name}: {error.what}", error.remedy)
    if made != contract.input_shape:
        what = f"{told} becomes {made[0]} × {made[1]}, where model {contract.name} takes "
        what += f"{contract.input_shape[0]} × {contract.input_shape[1]}"
        return fail(
            "frame", what, "set the detector's region and binning as at the training, or load a model for these"
        )
    return ok("frame", f"{told} fits model {contract.name}")


def _rate(seen: SeenStream) -> Finding:
    live = seen.live
    first, last = live[0].arrived, live[-1].arrived
    rate = f", {(len(live) - 1) / (last - first):.0f}/s" if last > first else ""
    return ok("rate", f"{len(live)} frames within {seen.seconds:g} s{rate}")


def _gaps(seen: SeenStream) -> Finding:
    ids, twice = FrameIds(), 0
    for frame in seen.live:
        twice += ids.accept(frame.raw_id, frame.time) is None
    count = len(seen.live)
    if twice:
        what = f"{twice} of {count} frames came again with the same uniqueId and time"
        return fail("frame ids", what, "look whether two plugins, or a repeating gateway, serve this channel")
    if ids.missed:
        what = f"{ids.missed} of {count + ids.missed} frames are missing: gaps in uniqueId"
        remedy = "raise the queues of the detector's PVA plugin, and look at its DroppedArrays and at the network"
        return (fail if ids.missed > _BAD_SHARE * count else warn)("frame ids", what, remedy)
    disorder = f", {ids.disordered} out of order" if ids.disordered else ""
    return ok("frame ids", f"{seen.live[0].raw_id} to {seen.live[-1].raw_id} without a gap{disorder}")
