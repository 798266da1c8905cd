"""The agent's end of a nursery: a process that has loaded what steps need, and forks each of them at once."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_log = logging.getLogger(__name__)
_MODULE = "ptychostream.hpc_agent.running.nursery_child"
_LOAD_S = 300.0
_STOP_S = 10.0
_LOST = -9
"""Status of a child whose nursery is gone: it ends with it, and nobody is told how."""


class NurseryChild:
    """A process that a nursery has forked; leads a group of its own. As far as it goes, what Popen is."""

    def __init__(self, changed: threading.Condition) -> None:
        self.pid = 0
        self.returncode: int | None = None
        self._changed = changed

    def poll(self) -> int | None:
        """Its status, as Popen gives it; None: it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its status, when it has ended. Raises subprocess.TimeoutExpired."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.returncode is not None, timeout):
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        assert self.returncode is not None
        return self.returncode

    def release(self) -> None:
        """Nothing is held for it."""


class Nursery:
    """Starts children of one process, which is started with this object and loads its modules meanwhile.

    Parameters
    ----------
    modules
        What it loads.
    nice
        How far it and its children stand back.
    environment
        Of all of them.

    Raises
    ------
    OSError
        No process can be started.
    """

    def __init__(self, modules: Sequence[str], nice: int, environment: Mapping[str, str]) -> None:
        self._changed = threading.Condition()
        self._children: dict[int, NurseryChild] = {}  # that have not ended
        self._number = 0
        self._gone = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, str(nice), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            start_new_session=True,  # an interrupt at the terminal is for the agent
        )
        self._reader = threading.Thread(target=self._read, name="nursery", daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        """Whether it may still start something."""
        return not self._gone

    def start(self, words: Sequence[str], log: Path) -> NurseryChild:
        """Run `python -m words…`, with its output added to `log`; returns when it runs, which needs the modules.

        Raises
        ------
        OSError
            The nursery is gone, or hangs and is ended.
        """
        child = NurseryChild(self._changed)
        assert self._process.stdin is not None
        with self._changed:
            self._number += 1
            number = self._number
            asked = {"number": number, "words": list(words), "log": str(log)}
            self._children[number] = child
            try:
                self._process.stdin.write(json.dumps(asked).encode() + b"\n")
                self._process.stdin.flush()
                self._changed.wait_for(lambda: child.pid or self._gone, _LOAD_S)
                if not child.pid:
                    self._process.kill()
                    raise BrokenPipeError("the process that starts steps has ended, or hangs")
            except (OSError, ValueError) as error:  # ValueError: closed here
                self._children.pop(number, None)
                raise OSError(f"{error}") from error
        return child

    def close(self) -> None:
        """End it; what it has started ends by itself."""
        with suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._note(json.loads(line))
        with self._changed:
            self._gone = True
            for child in self._children.values():
                child.returncode = _LOST
            if self._children:
                _log.warning("the process that starts steps has ended, and %d with it", len(self._children))
            self._children.clear()
            self._changed.notify_all()

    def _note(self, answer: dict[str, int]) -> None:
        with self._changed:
            child = self._children.get(answer["number"])
            if child is None:
                return  # given up, and the nursery with it
            if "pid" in answer:
                child.pid = answer["pid"]
            else:
                child.returncode = answer["status"]
                del self._children[answer["number"]]
            self._changed.notify_all()
