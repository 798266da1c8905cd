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
        count, came = len(seen.refused), len(seen.refused) + len(seen.images)
        error = seen.refused[0]
        yield fail("updates", f"{count} of {came} updates of {seen.channel} are no frames: {error.what}", error.remedy)
    again = "start an acquisition, and call doctor again"
    if not seen.images:
        if seen.refusal:
            yield fail("images", f"{seen.channel}: {seen.refusal}", "name the channel of a detector's PVA plugin")
        elif not seen.refused:
            yield warn("images", f"no image of {seen.channel} came within {seen.seconds:g} s", again)
        return
    if seen.wanted:
        yield check_shape(seen, contract)
    else:
        what = f"none of {len(seen.images)} frames is of the wanted kind"
        yield fail("selection", what, "correct input.select_attribute and input.select_value")
    if seen.held is not None:
        held = seen.held
        old = f", {seen.began - held.time:.0f} s old" if held.time else ""
        what = f"{seen.channel} holds its last image, uniqueId {held.raw_id}{old}; nothing is acquired now"
        yield warn("images", what, again)
        return
    yield _rate(seen)
    yield _gaps(seen)


def check_shape(seen: SeenStream, contract: ModelContract | None) -> Finding:
    """Whether the wanted frames have one shape and type, and those that the model takes."""
    shapes = sorted({(frame.shape, frame.dtype) for frame in seen.wanted})
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
    live = seen.frames
    first, last = live[0].arrived, live[-1].arrived
    rate = f", {(len(live) - 1) / (last - first):.0f}/s" if last > first else ""
    return ok("rate", f"{len(live)} frames within {seen.seconds:g} s{rate}")


def _gaps(seen: SeenStream) -> Finding:
    ids, twice = FrameIds(), 0
    for frame in seen.frames:
        twice += ids.accept(frame.raw_id, frame.time) is None
    count = len(seen.frames)
    if twice:
        what = f"{twice} of {count} frames came again with the same uniqueId and time"
        return fail("frame ids", what, "look whether two plugins, or a repeating gateway, serve this channel")
    if ids.missed:
        what = f"{ids.missed} of {count + ids.missed} frames are missing: gaps in uniqueId"
        remedy = "raise the queues of the detector's PVA plugin, and look at its DroppedArrays and at the network"
        return (fail if ids.missed > _BAD_SHARE * count else warn)("frame ids", what, remedy)
    disorder = f", {ids.disordered} out of order" if ids.disordered else ""
    return ok("frame ids", f"{seen.frames[0].raw_id} to {seen.frames[-1].raw_id} without a gap{disorder}")
