"""The simulated beamline (`ptychostream beamline`) as a device of ophyd-async: triggered, it takes a scan."""

from __future__ import annotations

import asyncio

import numpy as np
from bluesky.protocols import Triggerable
from numpy.typing import NDArray
from ophyd_async.core import (
    Array1D,
    AsyncStatus,
    StandardReadable,
    set_and_wait_for_other_value,
    wait_for_value,
)
from ophyd_async.core import StandardReadableFormat as Format
from ophyd_async.epics.core import epics_signal_r, epics_signal_rw

from ptychostream.errors import StreamError

_TAKEN = ("Idle", "Open")
"""State_RBV after all frames of a scan, or of a part of it, were taken."""


class SimulatedBeamline(StandardReadable, Triggerable):  # type: ignore[misc]  # ophyd-async is not followed
    """The beamline's scan records. An event has the scan's id and the frames that were sent.

    Parameters
    ----------
    prefix
        The beamline's `--prefix`.
    name
        Name of the device in documents.
    timeout_s
        How long a scan may take, s.
    """

    def __init__(self, prefix: str = "bl:", name: str = "", timeout_s: float = 600.0) -> None:
        self.prefix = prefix
        self._timeout_s = timeout_s
        pva = f"pva://{prefix}"
        self.start = epics_signal_rw(bool, f"{pva}Start")
        self.busy = epics_signal_r(bool, f"{pva}Busy_RBV")
        self.state = epics_signal_r(str, f"{pva}State_RBV")
        self.message = epics_signal_r(str, f"{pva}Message_RBV")
        self.file = epics_signal_r(str, f"{pva}FullFileName_RBV")
        self.frames = epics_signal_rw(int, f"{pva}Frames")
        self.step_nm = epics_signal_rw(float, f"{pva}Step")
        self.dose = epics_signal_rw(float, f"{pva}Dose")
        self.sample = epics_signal_rw(str, f"{pva}Sample")
        self.seed = epics_signal_rw(int, f"{pva}Seed")
        self.same_sample = epics_signal_rw(bool, f"{pva}SameSample")
        self.more_points = epics_signal_rw(bool, f"{pva}MorePoints")
        self.points_x_um = epics_signal_rw(Array1D[np.float64], f"{pva}PointsX")
        self.points_y_um = epics_signal_rw(Array1D[np.float64], f"{pva}PointsY")
        with self.add_children_as_readables(Format.UNCACHED_SIGNAL):
            self.scan_id = epics_signal_r(str, f"{pva}ScanID_RBV")
            self.sent = epics_signal_r(int, f"{pva}FramesSent_RBV")
        self.add_readables([self.sample, self.seed, self.dose, self.step_nm], Format.CONFIG_SIGNAL)
        super().__init__(name=name)

    async def prepare_points(self, points_m: NDArray[np.float64], more: bool) -> None:
        """The next scan, or part of one, takes these points, [N, 2] (x, y) in metres; `more`: the scan stays open."""
        points_um = np.asarray(points_m, np.float64).reshape(-1, 2) * 1e6
        await asyncio.gather(
            self.points_x_um.set(np.ascontiguousarray(points_um[:, 0])),
            self.points_y_um.set(np.ascontiguousarray(points_um[:, 1])),
            self.more_points.set(more),
        )

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Take a scan, or a part of it. Raises StreamError where it was not taken in full, or not in time."""
        try:
            await set_and_wait_for_other_value(self.start, True, self.busy, True, timeout=self._timeout_s)
            await wait_for_value(self.busy, False, self._timeout_s)
        except asyncio.TimeoutError as error:
            remedy = "see whether the beamline waits for the IOC, and how long a scan takes at its FrameRate"
            raise StreamError(f"no scan within {self._timeout_s:g} s", where=self.prefix, remedy=remedy) from error
        state = await self.state.get_value(cached=False)
        if state not in _TAKEN:
            message = await self.message.get_value(cached=False)
            raise StreamError(f"{state}: {message}", where=self.prefix, remedy="start it again")
