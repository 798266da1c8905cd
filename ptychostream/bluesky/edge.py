"""The IOC as a device of ophyd-async, built from its PVI structures: triggered, it waits for the stitched phase."""

from __future__ import annotations

import asyncio

from bluesky.protocols import Triggerable
from ophyd_async.core import (
    AsyncStatus,
    Device,
    SignalR,
    SignalRW,
    StandardReadable,
    TriggerableCommand,
    observe_signals_value,
    soft_signal_rw,
    wait_for_value,
)
from ophyd_async.core import StandardReadableFormat as Format
from ophyd_async.epics.core import PviDeviceConnector

from ptychostream.bluesky.picture import Picture, newest_picture
from ptychostream.errors import StreamError


class ScanSignals(Device):  # type: ignore[misc]  # ophyd-async is not followed
    """The group "scan"."""

    id: SignalR[str]
    active: SignalR[bool]
    end_scan: TriggerableCommand


class AccountingSignals(Device):  # type: ignore[misc]  # ophyd-async is not followed
    """The group "accounting"."""

    frames_received: SignalR[int]
    frames_stitched: SignalR[int]
    frames_pending: SignalR[int]
    frames_missed: SignalR[int]


class PluginSignals(Device):  # type: ignore[misc]  # ophyd-async is not followed
    """The group "plugin"."""

    dropped_arrays: SignalR[int]


class QualitySignals(Device):  # type: ignore[misc]  # ophyd-async is not followed
    """The group "quality"."""

    ssim: SignalR[float]
    ssim1px: SignalR[float]
    ssim_scan: SignalR[str]
    ssim_reference: SignalRW[str]
    consistency: SignalR[float]
    dose_scale: SignalRW[float]


class ModelSignals(Device):  # type: ignore[misc]  # ophyd-async is not followed
    """The group "model"."""

    version: SignalR[str]
    sha: SignalR[str]
    engine_name: SignalR[str]


class PtychoEdge(StandardReadable, Triggerable):  # type: ignore[misc]  # ophyd-async is not followed
    """The IOC. Every group of its records is a sub-device; those below are there before it is connected.

    An event has the scan's id, the frames that are stitched, the model's version and sha256, SSIM, and the scan that it
    is about. The configuration has the engine, the reference and the dose scale.

    Parameters
    ----------
    prefix
        The IOC's `--prefix`.
    name
        Name of the device in documents.
    timeout_s
        How long `trigger` waits for the scan to begin, and for its end after that, s.

    Attributes
    ----------
    expected
        Id of the scan that `trigger` waits for. Empty: the one that runs, or the last one.
    """

    plugin: PluginSignals
    scan: ScanSignals
    accounting: AccountingSignals
    quality: QualitySignals
    model: ModelSignals

    def __init__(self, prefix: str, name: str = "", timeout_s: float = 60.0) -> None:
        self.prefix = prefix
        self._timeout_s = timeout_s
        connector = PviDeviceConnector(prefix)
        connector.create_children_from_annotations(self)
        self.expected = soft_signal_rw(str, "")
        shown = [self.scan.id, self.accounting.frames_stitched, self.model.version, self.model.sha]
        judged = [self.quality.ssim1px, self.quality.ssim_scan, self.quality.consistency]
        self.add_readables([*shown, *judged], Format.UNCACHED_SIGNAL)
        self.add_readables([self.quality.ssim], Format.HINTED_UNCACHED_SIGNAL)
        of_set_up = [self.model.engine_name, self.quality.ssim_reference, self.quality.dose_scale]
        self.add_readables(of_set_up, Format.CONFIG_SIGNAL)
        super().__init__(name=name, connector=connector)

    @AsyncStatus.wrap
    async def trigger(self) -> None:
        """Wait until the expected scan is over, its last frame stitched, and the phase served and compared.

        Raises
        ------
        StreamError
            The scan has not begun, or has not ended, within the time limit.
        """
        scan = await self.expected.get_value()
        try:
            if scan:
                await wait_for_value(self.scan.id, scan, self._timeout_s)
            await wait_for_value(self.scan.active, False, self._timeout_s)
        except asyncio.TimeoutError as error:
            remedy = "see StatusMessage_RBV; end the scan by EndScan where the beamline does not say that it is over"
            what = f"scan {scan or 'any'} has not begun or not ended within {self._timeout_s:g} s: {error}"
            raise StreamError(what, where=self.prefix, remedy=remedy) from error
        await self.scan.end_scan.trigger(timeout=self._timeout_s)  # returns when the phase is compared

    async def came(self) -> int:
        """Frames that came so far, and those that are known to be missing."""
        counts = (self.accounting.frames_received, self.accounting.frames_missed)
        return sum(await asyncio.gather(*(count.get_value(cached=False) for count in counts)))

    async def settle(self, came: int) -> int:
        """Wait until `came` has reached this number, and no frame is under way.

        Returns
        -------
        Frames that the IOC has stitched since its start.

        Raises
        ------
        StreamError
            They have not come within the time limit.
        """
        received, pending, stitched = (
            getattr(self.accounting, f"frames_{name}") for name in ("received", "pending", "stitched")
        )
        watched = [received, pending, stitched, self.accounting.frames_missed, self.plugin.dropped_arrays]
        seen: dict[SignalR[int], int] = {}
        try:
            async for signal, value in observe_signals_value(*watched, done_timeout=self._timeout_s):
                seen[signal] = value
                if len(seen) < len(watched) or seen[received] + seen[self.accounting.frames_missed] < came:
                    continue
                of_one_moment = seen[received] == seen[stitched] + seen[self.plugin.dropped_arrays]
                if seen[pending] == 0 and of_one_moment:
                    return seen[stitched]
        except asyncio.TimeoutError as error:
            what = f"{seen.get(received, 0)} of {came} frames have come after {self._timeout_s:g} s"
            raise StreamError(what, where=self.prefix, remedy="see FramesMissed_RBV and StatusMessage_RBV") from error
        raise AssertionError("unreachable: the signals are observed until the time limit")

    async def picture(self, scan: str, frames: int) -> Picture:
        """The stitched phase of a scan with at least so many frames. Raises StreamError after the time limit."""
        return await newest_picture(self.prefix, scan, frames, self._timeout_s)
