"""The agent: waits for scans, works through them, keeps the edge's model good; goes on where it was when it died."""

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
_RENEW_S = 10.0  # each renewal is a write that waits for the disk: as few as keep the lease from running out
_TICK_S = 0.5
_PUSH_AGAIN_S = 5.0
_COMMANDS = 1000  # that may wait for the next tick


class Edge(Protocol):
    """The edge's records, as the agent uses them. Nothing here blocks or raises for an edge that is away."""

    def switches(self) -> Switches:
        """As last read."""
        ...

    def live_model(self) -> str | None:
        """sha256 of the model that runs; "" for none, None where the edge is not reached."""
        ...

    def report(self, **values: Any) -> None:
        """Write records Agent:<name>, the latest values, when the edge is there."""
        ...


Push = Callable[[str], None]
"""Brings a model of the store to the edge; raises AgentError where it is not live there when it returns."""


class Agent:
    """The loop. The thread that calls `run` tends the policy, the lease and the pushes; another works on scans.

    Parameters
    ----------
    journal
        Of the work folder; the agent takes its lease.
    policy
        Decides; its settings are the edge's switches.
    work
        What is done with a scan.
    edge, push
        See there.
    scan_key
        The name of a scan in the journal: the same for an event that is told twice.
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
        """The operator's "reconstruct" or "retrain", of the latest scan. Any thread."""
        self._commands.put(name)
        self._wake.set()

    def stop(self) -> None:
        """End `run`; a step that is under way is given up, and begun again at the next start. Any thread."""
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
            Another agent is at work here, or the journal fails.
        """
        self._renew_lease()
        for scan, step in self._journal.recover(time.time()):
            _log.info("scan %s: %s was under way when the agent ended, and is begun again", scan, step)
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
        """Bring the newest model that waits to the edge; tried again until the edge takes it."""
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
        """In a thread of its own: an edge may take minutes to build an engine, and the lease has to be renewed."""
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
        except PtychostreamError as error:  # the journal itself: nothing can go on without it
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - the thread's outermost
            _log.exception("the agent's work failed")
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._wake.set()
