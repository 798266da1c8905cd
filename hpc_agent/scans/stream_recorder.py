"""Where there is no shared disk: `ptychostream record` as a child, all the agent's life, one file per scan."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import StreamError

_log = logging.getLogger(__name__)
_RESTART_S = (1.0, 60.0)


class StreamRecorderSettings(Settings):
    """What is recorded, and where to.

    Attributes
    ----------
    channel
        PVA channel of the detector's NTNDArrays.
    template
        Of the files, with `{scan}`: the agent's `CollectSettings.recordings`.
    arguments
        Further words for `ptychostream record`, such as `--energy-pv`.
    log
        File for what the child says.
    stop_s
        For how long it may finish its files when it is stopped.
    """

    channel: str
    template: str
    arguments: tuple[str, ...] = ()
    log: Path
    stop_s: float = Field(30.0, gt=0)


class StreamRecorder:
    """Keeps the child alive: call `check` now and then. A context manager.

    Parameters
    ----------
    settings
        See `StreamRecorderSettings`.
    environment
        Of the child; this process's where None.
    """

    def __init__(self, settings: StreamRecorderSettings, environment: Mapping[str, str] | None = None) -> None:
        self.restarts = 0
        self._settings = settings
        self._environment = dict(environment) if environment is not None else None
        self._process: subprocess.Popen[bytes] | None = None
        self._wait_s = _RESTART_S[0]
        self._started = 0.0

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the child. Raises StreamError when that fails."""
        settings = self._settings
        words = [sys.executable, "-m", "ptychostream", "record", settings.channel, settings.template]
        try:
            settings.log.parent.mkdir(parents=True, exist_ok=True)
            with settings.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*words, *settings.arguments],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        except OSError as error:
            raise StreamError(
                f"the recording does not start: {error}", where=settings.channel, remedy="check the log's folder"
            ) from error
        self._started = time.monotonic()

    def check(self) -> bool:
        """Start a child that has died again, later each time; True while it runs."""
        if self.running:
            if time.monotonic() - self._started > _RESTART_S[1]:
                self._wait_s = _RESTART_S[0]
            return True
        if self._process is not None and time.monotonic() - self._started >= self._wait_s:
            _log.warning("the recording ended with %s: see %s", self._process.returncode, self._settings.log)
            self.restarts += 1
            self._wait_s = min(2 * self._wait_s, _RESTART_S[1])
            self.start()
        return self.running

    def stop(self) -> None:
        """Let the child finish its files, and end it."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(self._settings.stop_s)
        except subprocess.TimeoutExpired:
            _log.warning("the recording does not end: killed; `ptychostream record --recover` finishes its file")
            process.kill()
            process.wait()

    def __enter__(self) -> StreamRecorder:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
