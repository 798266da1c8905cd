"""The agent's loop: it takes in completed scans, works on them, and sends models to the edge.

Its state is in the journal, so that an agent that was killed continues where it was."""

from __future__ import annotations

import logging
import math
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any, Protocol

from ptychostream.errors import AgentError, PtychostreamError
from ptychostream.hpc_agent.edge.switches import Switches
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy import Enabled, Mode, ModelLost, ModelPushed
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.scan_work import ScanWork, StoppedError
from ptychostream.hpc_agent.scans.collect import ScanEvent

_log = logging.getLogger(__name__)

_LEASE_S = 30.0
_RENEW_S = 10.0  # each renewal writes to the disk and waits for it
_TICK_S = 0.5
_PUSH_AGAIN_S = 5.0
_COMMANDS = 1000  # at most so many commands wait for the next tick


class Edge(Protocol):
    """The edge's records, as the agent uses them. Nothing here blocks or raises for an edge that is away."""

    def switches(self) -> Switches:
        """The switches as they were last read."""
        ...

    def live_model(self) -> str | None:
        """sha256 of the model that runs; "" where none runs, None where the edge is not connected."""
        ...

    def report(self, **values: Any) -> None:
        """Write the records Agent:<name>. They are written when the edge is connected, each with its latest value."""
        ...


Push = Callable[[str], None]
"""Sends a model of the store to the edge. Raises AgentError unless the model is live when it returns."""


class Agent:
    """The loop. The thread that calls `run` handles the policy, the lease and the pushes; another works on scans.

    Parameters
    ----------
    journal
        The journal of the work folder; the agent takes its lease.
    policy
        Decides what is done. Its settings are the edge's switches.
    work
        Does the steps of a scan.
    edge, push
        See `Edge` and `Push`.
    scan_key
        Gives the name of a scan in the journal: the same name for an event that is reported twice.
    clock
        A time in seconds that only increases.
    """

    def __init__(
        self,
        journal: Journal,
        policy: PolicyKeeper,
        work: ScanWork,
        edge: Edge,
        push: Push,
        scan_key: Callable[[ScanEvent], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._work = work
        self._edge = edge
        self._push = push
        self._scan_key = scan_key
        self._clock = clock
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._entering = threading.Lock()
        self._commands: queue.Queue[str] = queue.Queue(_COMMANDS)
        self._wake = threading.Event()
        self._more = threading.Event()  # scans for the worker
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._renew_at = -math.inf
        self._push_at = 0.0
        self._pushing: tuple[str, Future[None]] | None = None

    def scan_completed(self, event: ScanEvent, how: str = "complete") -> None:
        """Enter a scan in the journal before this returns. A scan that is reported twice is entered once. Any thread.

        `how` says for the log how the scan was noticed. Raises AgentError where the journal fails.
        """
        with self._entering:
            key = self._scan_key(event)
            new = self._journal.enter(key, asdict(event), time.time())
        if new:
            _log.info("scan %s is %s", key, how)
            self._more.set()
            self._wake.set()

    def command(self, name: str) -> None:
        """Take an operator's command, "reconstruct" or "retrain", for the latest scan. Any thread."""
        self._commands.put(name)
        self._wake.set()

    def stop(self) -> None:
        """End `run`. A running step is stopped and begins again at the next start. Any thread."""
        self._stop.set()
        self._wake.set()
        self._more.set()

    def run(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Work until `stop`.

        Parameters
        ----------
        on_started
            Called once the lease is taken.

        Raises
        ------
        AgentError
            Another agent uses this work folder, or the journal fails.
        """
        self._renew_lease()
        for scan, step in self._journal.recover(time.time()):
            _log.info("scan %s: %s was running when the agent ended, and begins again", scan, step)
        worker = threading.Thread(target=self._work_through, name="scans")
        worker.start()
        try:
            on_started()
            while not self._stop.is_set():
                self.tick()
                self._wake.wait(_TICK_S)
                self._wake.clear()
        finally:
            self.stop()
            worker.join()
            self._journal.give_lease(self._holder)
            self._edge.report(State="Offline", Message="the agent has ended")

    # The loop

    def tick(self) -> None:
        """Do once what `run` does every half second. Raises as `run` does."""
        self._renew_lease()
        self._take_commands()
        self._more.set()
        self._follow_switches()
        self._push_waiting()
        self._show()
        if self._failure is not None:
            raise self._failure

    def _renew_lease(self) -> None:
        now = self._clock()
        if now >= self._renew_at:
            self._journal.take_lease(self._holder, time.time(), _LEASE_S)
            self._renew_at = now + _RENEW_S

    def _take_commands(self) -> None:
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                break
            key = self._journal.ask_again(command)
            self._tell(f"{command} of scan {key} asked for" if key else f"{command}: there is no scan yet")

    def _follow_switches(self) -> None:
        mode = self._policy.mode
        enabled = self._edge.switches().enabled
        if enabled == (mode is Mode.PAUSED):
            self._policy.tell(Enabled(enabled))
        live = self._edge.live_model()
        if live == "" and mode not in (Mode.BOOTSTRAP, Mode.PAUSED) and not self._journal.waiting_push:
            self._policy.tell(ModelLost())

    def _push_waiting(self) -> None:
        """Send the newest waiting model to the edge; try again until the edge takes it."""
        sha256 = self._journal.waiting_push
        if self._pushing is None and (not sha256 or self._clock() < self._push_at):
            return
        if self._pushing is None:
            self._pushing = sha256, self._begin_push(sha256)
        sha256, pushed = self._pushing
        if not pushed.done():
            return
        self._pushing = None
        error = pushed.exception()
        if isinstance(error, AgentError):
            self._push_at = self._clock() + _PUSH_AGAIN_S
            self._tell(f"model {sha256[:12]} waits: {error}")
            return
        pushed.result()
        self._journal.pushed(sha256)
        self._push_at = 0.0
        self._tell(f"model {sha256[:12]} is live at the edge")
        self._policy.tell(ModelPushed())

    def _begin_push(self, sha256: str) -> Future[None]:
        """Push in another thread: an edge may build an engine for minutes, and the lease must be renewed meanwhile."""
        pushed: Future[None] = Future()

        def push() -> None:
            try:
                self._push(sha256)
            except Exception as error:  # noqa: BLE001 - handed to the loop
                pushed.set_exception(error)
            else:
                pushed.set_result(None)
            self._wake.set()

        threading.Thread(target=push, name="push", daemon=True).start()
        return pushed

    def _show(self) -> None:
        latest = self._journal.latest_scan()
        self._edge.report(State=self._policy.mode.value, LastScan=latest.key if latest else "")

    def _tell(self, message: str) -> None:
        _log.info("%s", message)
        self._edge.report(Message=message)

    # The worker

    def _work_through(self) -> None:
        try:
            while not self._stop.is_set():
                waiting = self._journal.open_scans()
                if waiting:
                    self._work.work(waiting[0], self._stop)
                    self._wake.set()
                else:
                    self._more.wait(_TICK_S)
                    self._more.clear()
        except StoppedError:
            return
        except PtychostreamError as error:  # the journal failed: nothing can continue without it
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the thread's outermost
            _log.exception("the agent's work failed")
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._wake.set()
