"""Wait for clients or a PV before the first frame of a stream."""

from __future__ import annotations

import threading
import time

import pvaccess as pva

from ptychostream.config import Settings
from ptychostream.errors import StreamError
from ptychostream.sim.replay.connections import wait_for_client

_POLL_S = 0.1


class Gate(Settings):
    """Conditions for the first frame.

    Attributes
    ----------
    wait_for
        A PV that must become 1, read over PVA, such as the edge's `Connected_RBV`.
    wait_for_client
        Whether a client must have subscribed.
    timeout_s
        Longest wait in seconds. None: no limit.
    """

    wait_for: str = ""
    wait_for_client: bool = False
    timeout_s: float | None = None

    def wait(self, stop: threading.Event) -> bool:
        """Wait for all conditions. Returns False if `stop` was set first. Raises StreamError after the longest wait."""
        start = time.monotonic()
        if self.wait_for_client and not wait_for_client(stop, self.timeout_s):
            return False
        left = None if self.timeout_s is None else self.timeout_s - (time.monotonic() - start)
        return not self.wait_for or wait_for_pv(self.wait_for, stop, left)


def wait_for_pv(name: str, stop: threading.Event, timeout_s: float | None = None) -> bool:
    """Wait until the PV `name` is a number or choice other than 0. Returns False if `stop` was set first."""
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
                remedy="start its server, or check EPICS_PVA_ADDR_LIST on both sides",
            )
