"""The agent's records at the edge, over Channel Access: its reports, the operators' switches and commands, its lease.

One thread reads and writes. The agent never waits for it. When the edge is away or restarts, the newest value of every
record is written as soon as it is connected again.
"""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, cast

import caproto
from caproto.threading.client import PV, Context, Subscription
from pydantic import ValidationError

from ptychostream.config import explain
from ptychostream.errors import AgentError
from ptychostream.hpc_agent.edge.edge_values import DOSE_AUTO, POLICIES, READ, WRITTEN, encoded, plain
from ptychostream.hpc_agent.edge.judge_dose import EdgeDose
from ptychostream.hpc_agent.edge.refining import Refining
from ptychostream.hpc_agent.edge.switches import Switches
from ptychostream.hpc_agent.journal.policy import PolicySettings
from ptychostream.model.agent_commands import COMMANDS
from ptychostream.model.model_push import judgement_signature
from ptychostream.refine.status import RefineStatus

_log = logging.getLogger(__name__)

_BEAT_S = 1.0
_REFRESH_S = 5.0  # all records are read this often, besides their updates
_CLAIM_AGAIN_S = 5.0
_CORE = ("Agent:Lease", "Agent:Lease_RBV", "Agent:Heartbeat", "ModelSHA_RBV")
_DEFAULTS = Switches()
_HOLDER_CHARACTERS = 38  # a string record holds 39; releasing the lease adds a sign


class EdgeRecords:
    """The records of one edge. Implements `ptychostream.hpc_agent.agent.Edge`; methods may be called from any thread.

    Parameters
    ----------
    prefix
        Prefix of the edge's records.
    defaults
        The switches until the edge is connected for the first time.
    on_command
        Called with an operator's command, "reconstruct" or "retrain"; `command_done` reports that it is done.
    on_refused
        Called when another agent has the lease, or access security refuses this one; it is tried again every 5 s.
    holder
        The agent's name in the lease.
    timeout_s
        Time limit of a read, or of a write with completion.
    key
        Judgements are signed with it; None: they are not.
    """

    def __init__(
        self,
        prefix: str,
        defaults: Switches = _DEFAULTS,
        *,
        on_command: Callable[[str], None] = lambda _: None,
        on_refused: Callable[[AgentError], None] = lambda _: None,
        holder: str = "",
        timeout_s: float = 2.0,
        key: bytes | None = None,
    ) -> None:
        self.prefix = prefix
        self._key = key
        self.holder = (holder or f"{socket.gethostname().partition('.')[0]}:{os.getpid()}")[-_HOLDER_CHARACTERS:]
        self._switches = defaults
        self._on_command = on_command
        self._on_refused = on_refused
        self._timeout_s = timeout_s
        self._lock = threading.Lock()  # protects the next five
        self._seen: dict[str, Any] = {}
        self._latest: dict[str, Any] = {}
        self._dirty: set[str] = set()
        self._told: dict[str, int] = {}
        self._lost = False
        self._connected = False
        self._held = False
        self._refusal = ""
        self._claim_at = 0.0
        self._refresh_at = 0.0
        self._beats = 0
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge records", daemon=True)
        self._context: Context | None = None
        self._pvs: dict[str, PV] = {}
        self._subscriptions: list[Subscription] = []

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the newest values, release the lease, and end the thread."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()

    # The agent's side

    @property
    def connected(self) -> bool:
        """Whether the edge is connected."""
        return self._connected

    @property
    def held(self) -> bool:
        """Whether this agent has the edge's lease."""
        return self._held

    def switches(self) -> Switches:
        """The operators' switches as they were last read."""
        return self._switches

    def live_model(self) -> str | None:
        """sha256 of the model that runs; "" where none runs, None where the edge is not connected."""
        return self._text("ModelSHA_RBV")

    def previous_model(self) -> str | None:
        """sha256 of the model that a rollback restores; "" for none, None where the edge is not connected."""
        return self._text("PreviousSHA_RBV")

    def rollback_message(self) -> str | None:
        """The edge's message about its latest rollback; None where the edge is not connected."""
        return self._text("RollbackMessage_RBV")

    def saves_canvases(self) -> bool:
        """Whether the edge saves the canvas of every scan automatically."""
        with self._lock:
            return bool(self._seen.get("AutoSaveCanvas_RBV"))

    def dose(self) -> EdgeDose:
        """The dose records as they are now."""
        with self._lock:
            mode, scale = self._seen.get("DoseMode_RBV"), self._seen.get("DoseScale_RBV")
        known = isinstance(scale, float) and math.isfinite(scale) and scale > 0
        return EdgeDose(None if mode is None else mode == DOSE_AUTO, scale if known else None)

    def refining(self) -> Refining:
        """What the edge's refinement does; disabled where its records were never read."""
        with self._lock:
            status, scan = self._seen.get("Refine:Status_RBV"), self._seen.get("Refine:Scan_RBV")
        return Refining(int(status) if isinstance(status, (int, float)) else RefineStatus.DISABLED, str(scan or ""))

    def pushed(self, sha256: str) -> None:
        """After a successful push, set what `live_model` returns until the record's update arrives."""
        with self._lock:
            if self._seen.get("ModelSHA_RBV") is not None:
                self._seen["ModelSHA_RBV"] = sha256

    def report(self, **values: Any) -> None:
        """Write the records Agent:<name>. Of several values for one record, the latest is written."""
        names = {f"Agent:{name}": value for name, value in values.items()}
        unknown = names.keys() - set(WRITTEN)
        if unknown:
            raise KeyError(f"no records {sorted(unknown)}")
        with self._lock:
            for name, value in names.items():
                if name not in self._latest or self._latest[name] != value:
                    self._latest[name] = value
                    self._dirty.add(name)
        self._wake.set()

    def judged(self, live_sha: str, ssim: float, previous_sha: str = "", ssim_previous: float = math.nan) -> None:
        """Report how well the live and the previous model did on a scan; the edge may roll back because of it."""
        if not math.isfinite(ssim):
            return
        both = bool(previous_sha) and math.isfinite(ssim_previous)
        with self._lock:
            self._latest["Agent:SSIM"] = ssim
            self._dirty.add("Agent:SSIM")
            if both:
                texts = {
                    "Agent:JudgedPreviousSHA": previous_sha,
                    "Agent:JudgedSignature": self._signed(live_sha, previous_sha, ssim, ssim_previous),
                    "Agent:JudgedSHA": live_sha,
                }
                self._latest |= {"Agent:SSIMPrevious": ssim_previous, **texts}
                self._dirty |= {"Agent:SSIMPrevious", *texts}
        self._wake.set()

    def _signed(self, *judged: Any) -> str:
        nonce = self._seen.get("Agent:JudgedNonce_RBV")
        return judgement_signature(self._key, self.prefix, str(nonce or ""), *judged) if self._key is not None else ""

    def command_done(self, name: str) -> None:
        """Report that an operator's command has ended, with success or not; a client that waits for it continues."""
        with self._lock:
            number = self._told.get(name)
            if number is not None:
                done = f"Agent:{name.capitalize()}Done"
                self._latest[done] = number
                self._dirty.add(done)
        self._wake.set()

    # The thread

    def _run(self) -> None:
        beat_at = time.monotonic()
        try:
            self._connect()
            while not self._stop.is_set():
                try:
                    if self._there():
                        self._tend(beat_at <= time.monotonic())
                except caproto.CaprotoError as error:
                    _log.warning("edge %s: %s", self.prefix, error)
                    self._held = False
                except Exception:  # noqa: BLE001 - the thread's outermost
                    _log.exception("edge %s", self.prefix)
                    self._held = False
                now = time.monotonic()
                if beat_at <= now:
                    beat_at = max(beat_at + _BEAT_S, now)
                self._wake.wait(max(0.0, beat_at - now))
                self._wake.clear()
            self._end()
        finally:
            self._disconnect()

    def _there(self) -> bool:
        """Whether the edge is connected. To one that has restarted, every record is written again."""
        with self._lock:
            lost, self._lost = self._lost, False
        there = all(self._pvs[name].connected for name in _CORE)
        if lost or there != self._connected:
            self._held, self._claim_at, self._refresh_at = False, 0.0, 0.0
        if there != self._connected:
            _log.info("edge %s %s", self.prefix, "is connected" if there else "is away")
            self._connected = there
        if not there and self._context is not None:
            self._context.broadcaster.search_now()  # caproto's own searches become less and less frequent
        return there

    def _tend(self, beat: bool) -> None:
        now = time.monotonic()
        if not self._held and now >= self._claim_at:
            self._claim()
            beat = True
        if self._held and self._text("Agent:Lease_RBV") not in (None, self.holder):
            self._held, self._claim_at = False, 0.0
            self._wake.set()
        if self._held and beat:  # first: the edge follows no judgement of an agent whose heart has not beaten
            self._beats = self._beats % 0x7FFFFFFF + 1
            self._write("Agent:Heartbeat", self._beats)
        if now >= self._refresh_at:
            self._refresh_at = now + _REFRESH_S
            for name in READ:
                if self._pvs[name].connected:
                    self._take(name, plain(self._pvs[name].read(timeout=self._timeout_s)))
        if not self._held:
            return
        self._write_dirty()
        for name in COMMANDS:
            self._look_for(name)

    def _claim(self) -> None:
        self._claim_at = time.monotonic() + _CLAIM_AGAIN_S
        lease = self._pvs["Agent:Lease"]
        if not cast(int, lease.access_rights or 0) & caproto.AccessRights.WRITE:
            what, remedy = "this user may not write the agent's records", "name it in access.agents at the edge"
            self._refused(AgentError(what, where=f"{self.prefix}Agent:Lease", remedy=remedy))
            return
        self._write("Agent:Lease", self.holder, wait=True)
        found = plain(self._pvs["Agent:Lease_RBV"].read(timeout=self._timeout_s))
        self._take("Agent:Lease_RBV", found)
        self._held = found == self.holder
        if not self._held:
            what, remedy = f"{found} is the agent of this edge", "end that agent first, or give this one another prefix"
            self._refused(AgentError(what, where=f"{self.prefix}Agent:Lease", remedy=remedy))
            return
        self._refusal = ""
        with self._lock:
            self._dirty = set(self._latest)

    def _refused(self, error: AgentError) -> None:
        if str(error) != self._refusal:
            self._refusal = str(error)
            _log.error("%s", error)
        self._on_refused(error)

    def _write_dirty(self) -> None:
        with self._lock:
            values = {name: self._latest[name] for name in WRITTEN if name in self._dirty}
        for name, value in values.items():
            if self._pvs[name].connected:
                self._write(name, value)
                with self._lock:
                    if self._latest[name] is value:
                        self._dirty.discard(name)

    def _write(self, name: str, value: Any, wait: bool = False) -> None:
        pv = self._pvs[name]
        data = encoded(name, value, pv.channel.native_data_type)
        pv.write(data, wait=wait, notify=wait, timeout=self._timeout_s)

    def _look_for(self, command: str) -> None:
        """Report an operator's command that is neither done nor reported yet."""
        with self._lock:
            asked = self._seen.get(f"Agent:{command.capitalize()}Asked_RBV")
            done = self._seen.get(f"Agent:{command.capitalize()}Done")
            if asked is None or done is None or asked <= done or self._told.get(command) == asked:
                return
            self._told[command] = asked
        _log.info("%s is asked for at the edge", command)
        self._on_command(command)

    def _end(self) -> None:
        if not (self._held and self._there()):
            return
        try:
            self._write_dirty()
            self._write("Agent:Lease", f"-{self.holder}", wait=True)
        except caproto.CaprotoError as error:
            _log.warning("edge %s: the lease was not given back: %s", self.prefix, error)

    # Channel Access

    def _connect(self) -> None:
        names = list(dict.fromkeys((*_CORE, *READ, *WRITTEN)))
        self._context = Context(timeout=self._timeout_s)
        found = self._context.get_pvs(
            *(f"{self.prefix}{name}" for name in names), connection_state_callback=self._state_changed
        )
        self._pvs = dict(zip(names, found, strict=True))
        for name in READ:
            subscription = self._pvs[name].subscribe(data_type="native")
            subscription.add_callback(self._updated)  # a bound method: caproto holds it weakly
            self._subscriptions.append(subscription)

    def _disconnect(self) -> None:
        context, self._context = self._context, None
        self._connected = self._held = False
        if context is not None:
            context.broadcaster.cancel(*(pv.name for pv in self._pvs.values()))  # it would send on a closed socket
            context.disconnect()

    def _state_changed(self, pv: PV, state: str) -> None:
        name = pv.name.removeprefix(self.prefix)
        if state == "disconnected":
            with self._lock:
                self._lost = True
                self._seen.pop(name, None)
                if name.endswith("Asked_RBV"):
                    self._told.clear()
        self._wake.set()

    def _updated(self, subscription: Subscription, response: Any) -> None:
        self._take(subscription.pv.name.removeprefix(self.prefix), plain(response))
        self._wake.set()

    def _take(self, name: str, value: Any) -> None:
        with self._lock:
            self._seen[name] = value
            seen = dict(self._seen)
        try:
            self._switches = _switches(seen, self._switches)
        except ValidationError as error:
            _log.warning("edge %s: %s is not followed: %s", self.prefix, name, explain(error))

    def _text(self, name: str) -> str | None:
        with self._lock:
            return cast("str | None", self._seen.get(name))


def _switches(seen: dict[str, Any], before: Switches) -> Switches:
    """The operators' switches now; those not read yet stay as before. Raises ValidationError."""
    policy = before.policy.model_dump()
    for key, name in (("interval_s", "Interval"), ("tolerance", "Tolerance"), ("scans", "Scans")):
        policy[key] = seen.get(f"Agent:{name}", policy[key])
    chosen = seen.get("Agent:Policy")
    if chosen is not None:
        policy["training"] = POLICIES[int(chosen)]
    enabled = bool(seen.get("Agent:Enable", before.enabled))
    return Switches(enabled, PolicySettings.model_validate(policy))
