"""The detector's clock beside this machine's, and time stamps that several frames share."""

from __future__ import annotations

import time as clock

from ptychostream.doctor.finding import Finding, fail, ok, warn
from ptychostream.doctor.stream import SeenStream

_NEAR_S = 60.0
_REMEDY = "set the detector's clock by NTP; an areaDetector driver may have its own: see TIME_STAMP and its EPICS stamp"


def check_clock(seen: SeenStream) -> Finding | None:
    """None where no frame was acquired while the stream was watched."""
    live = seen.frames
    if not live:
        return None
    if any(frame.time == 0 for frame in live):
        what = "frames have no time stamp: the time of arrival takes its place"
        return warn("clock", what, "have the driver fill the time stamp, if positions are joined by time")
    late = sorted(frame.arrived - frame.time for frame in live)
    middle = late[len(late) // 2]
    if abs(middle) > _NEAR_S or middle < -1.0:
        taken = clock.strftime("%Y-%m-%d %H:%M:%S", clock.localtime(live[-1].time))
        side = "behind" if middle > 0 else "ahead of"
        what = f"the detector's clock says {taken}: {abs(middle):.3g} s {side} this machine's"
        return fail("clock", what, _REMEDY)
    frames = {(frame.raw_id, frame.time) for frame in live}  # one that came twice is another fault
    shared = len(frames) - len({time for _, time in frames})
    if shared:
        what = f"{shared} of {len(frames)} frames have the time stamp of another frame"
        return fail("clock", what, "have the driver stamp each frame: positions cannot be joined by such times")
    return ok("clock", f"frames are {1e3 * middle:.1f} ms old when they arrive")
