"""What a stream waits for before its first frame."""

from __future__ import annotations

import threading
import time

import pvaccess as pva

from ptychostream.config import Settings
from ptychostream.errors import StreamError
from ptychostream.sim.replay.connections import wait_for_client

_POLL_S = 0.1


class Gate(Settings):
    """What must be there before the first frame.

    Attributes
    ----------
    wait_for
        A PV that must become 1 over PVA, such as the edge's `Connected_RBV`.
    wait_for_client
        Any client must have subscribed.
    timeout_s
        For how long to wait; None: for ever.
    """

    wait_for: str = ""
    wait_for_client: bool = False
    timeout_s: float | None = None

    def wait(self, stop: threading.Event) -> bool:
        """Wait until all is there; False when `stop` was set first. StreamError when the time passes."""
        start = time.monotonic()
        if self.wait_for_client and not wait_for_client(stop, self.timeout_s):
            return False
        left = None if self.timeout_s is None else self.timeout_s - (time.monotonic() - start)
        return not self.wait_for or wait_for_pv(self.wait_for, stop, left)


def wait_for_pv(name: str, stop: threading.Event, timeout_s: float | None = None) -> bool:
    """Wait until the PV `name`, over PVA, is a number or choice other than 0; False when `stop` was set first."""
    channel = pva.Channel(name, pva.PVA)
    channel.setTimeout(1.0)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    last = "nothing answers"
    while True:
        try:
            value = channel.get("field(value)")["value"]
            last = f"it is {value}"
            if value["index"] if isinstance(value, dict) else value:
                return True
        except pva.PvaException as error:
            last = str(error)
        if stop.wait(_POLL_S):
            return False
        if deadline is not None and time.monotonic() > deadline:
            raise StreamError(
                f"not 1 within {timeout_s:.3g} s: {last}",
                where=name,
                remedy="start what serves it, or check EPICS_PVA_ADDR_LIST on both sides",
            )
