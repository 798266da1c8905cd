"""The agent's loop: it takes in completed scans, works on them, and sends models to the edge.

Its state is in the journal, so that an agent that was killed continues where it was."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from ptychostream.errors import AgentError, PtychostreamError
from ptychostream.hpc_agent.disk_room import DiskRoom, StoppedError
from ptychostream.hpc_agent.edge.switches import Switches
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy import Enabled, Mode, ModelLost, ModelPushed
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.scan_work import ScanWork
from ptychostream.hpc_agent.scans.collect import ScanEvent

_log = logging.getLogger(__name__)

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
    """The loop. The thread that calls `run` handles the policy and the pushes; another works on scans.

    Where the disk is full, both wait in the journal for room; see `DiskRoom`.

    Parameters
    ----------
    journal
        The journal of the work folder, of which this agent has the lease.
    policy
        Decides what is done. Its settings are the edge's switches.
    work
        Does the steps of a scan.
    edge, push
        See `Edge` and `Push`.
    room
        Of the journal and of the work. Its reason is the state Fault.
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
        room: DiskRoom | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._policy = policy
        self._work = work
        self._edge = edge
        self._push = push
        self._scan_key = scan_key
        self._clock = clock
        self._room = room or DiskRoom(Path())
        self._room.on_change = self._held_back
        self._entering = threading.Lock()
        self._commands: queue.Queue[str] = queue.Queue(_COMMANDS)
        self._wake = threading.Event()
        self._more = threading.Event()  # scans for the worker
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._push_at = 0.0
        self._pushing: tuple[str, Future[None]] | None = None

    def scan_completed(self, event: ScanEvent, how: str = "complete") -> bool:
        """Enter a scan in the journal before this returns. A scan that is reported twice is entered once. Any thread.

        `how` says for the log how the scan was noticed. Where the disk is full, this waits until it is not. Returns
        False where the agent stops meanwhile. Raises AgentError where the journal fails otherwise.
        """
        try:
            with self._entering:
                key = self._scan_key(event)
                new = self._journal.enter(key, asdict(event), time.time())
        except StoppedError:
            _log.warning(
                "scan %s is not in the journal: it is looked for at the next start", event.scan_id or event.file
            )
            return False
        if new:
            _log.info("scan %s is %s", key, how)
            self._more.set()
            self._wake.set()
        return True

    def command(self, name: str) -> None:
        """Take an operator's command, "reconstruct" or "retrain", for the latest scan. Any thread."""
        try:
            self._commands.put_nowait(name)
        except queue.Full:
            _log.error("%s is not done: %d commands wait already", name, _COMMANDS)
        self._wake.set()

    def stop(self) -> None:
        """End `run`. A running step is stopped and begins again at the next start. Any thread."""
        self._stop.set()
        self._room.stop()
        self._wake.set()
        self._more.set()

    def run(self, on_started: Callable[[], None] = lambda: None) -> None:
        """Work until `stop`.

        Parameters
        ----------
        on_started
            Called once the work has begun.

        Raises
        ------
        AgentError
            The journal fails for another reason than a full disk.
        """
        try:
            for scan, step in self._journal.recover(time.time()):
                _log.info("scan %s: %s was running when the agent ended, and begins again", scan, step)
        except StoppedError:
            return
        worker = threading.Thread(target=self._work_through, name="scans")
        worker.start()
        try:
            on_started()
            while not self._stop.is_set():
                self.tick()
                self._wake.wait(_TICK_S)
                self._wake.clear()
        except StoppedError:
            pass
        finally:
            self.stop()
            worker.join()
            self._edge.report(State="Offline", Message="the agent has ended")

    # The loop

    def tick(self) -> None:
        """Do once what `run` does every half second. Raises as `run` does."""
        self._take_commands()
        self._more.set()
        self._follow_switches()
        self._push_waiting()
        self._show()
        if self._failure is not None:
            raise self._failure

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
        error = pushed.exception()
        if isinstance(error, AgentError):
            self._pushing = None
            self._push_at = self._clock() + _PUSH_AGAIN_S
            self._tell(f"model {sha256[:12]} waits: {error}")
            return
        pushed.result()
        self._journal.pushed(sha256)
        self._pushing = None
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
        state = "Fault" if self._room.reason else self._policy.mode.value
        self._edge.report(State=state, LastScan=latest.key if latest else "")

    def _held_back(self, reason: str) -> None:
        if reason:
            self._edge.report(State="Fault", Message=reason)
        else:
            self._tell("there is room on the disk again: work goes on")
        self._wake.set()

    def _tell(self, message: str) -> None:
        _log.info("%s", message)
        self._edge.report(Message=message)

    # The worker

    def _work_through(self) -> None:
        try:
            while not self._stop.is_set():
                waiting = self._journal.next_scan()
                if waiting is not None:
                    self._work.work(waiting, self._stop)
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
