"""`python -m ptychostream.hpc_agent.running.nursery_child NICE MODULE…`: loads once, forks each step.

A step's own work can be shorter than loading torch, numba and matplotlib. Here that is done before there is a step:
a fork takes a few milliseconds, and each step still has a process, a group, a log and an end of its own. No thread is
started and no device is opened before the fork, so that a child finds everything as if it had loaded it itself.

Requests come by stdin, a line of JSON each: `{"number", "words": [MODULE, ARGUMENT…], "log"}`. Answers go to stdout:
`{"number", "pid"}` when a step runs, `{"number", "status"}` when it has ended. The end of stdin ends this process;
what runs then ends by itself, see `end_when_closed`.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import sys
from typing import NamedTuple

from ptychostream.hpc_agent.running.runner_child import end_when_closed
from ptychostream.processes.niceness import stand_back

_CHUNK = 65536


class Child(NamedTuple):
    """What a forked process is to do; it ends when one of the descriptors `needs` is closed at its other end."""

    words: list[str]
    log: str
    needs: tuple[int, ...]


class Nursery:
    """Forks what it is asked for, and tells what becomes of it.

    Parameters
    ----------
    requests, answers
        Descriptors.
    """

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._alive, self._held = os.pipe()  # a child sees by it that this process is gone
        self._wake, self._woken = os.pipe()
        self._numbers: dict[int, int] = {}  # by process
        os.set_blocking(self._wake, False)
        os.set_blocking(self._woken, False)

    def serve(self) -> Child | None:
        """Until the requests end: None. In a process that was forked: what it is to do."""
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        rest = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._requests, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                ready = [key.fd for key, _ in selector.select()]
                if self._wake in ready:
                    os.read(self._wake, _CHUNK)
                    self._reap()
                if self._requests in ready:
                    came = os.read(self._requests, _CHUNK)
                    if not came:
                        return None
                    *lines, rest = (rest + came).split(b"\n")
                    for line in lines:
                        if (child := self._fork(**json.loads(line))) is not None:
                            return child

    def _fork(self, number: int, words: list[str], log: str) -> Child | None:
        """None in this process; in the other one, which leads a group of its own by then, what it is to do."""
        leads, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            for descriptor in (leads, told, self._held, self._wake, self._woken, self._answers):
                os.close(descriptor)
            return Child(words, log, (self._requests, self._alive))
        os.close(told)
        os.read(leads, 1)  # its end: the group is there to be ended
        os.close(leads)
        self._numbers[pid] = number
        self._answer(number=number, pid=pid)
        return None

    def _reap(self) -> None:
        while self._numbers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self._answer(number=self._numbers.pop(pid), status=os.waitstatus_to_exitcode(status))

    def _answer(self, **content: int) -> None:
        os.write(self._answers, json.dumps(content).encode() + b"\n")


def run(child: Child) -> None:
    """Be the step."""
    log = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    end_when_closed(child.needs)
    module, *_ = sys.argv = child.words
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main() -> None:
    nice, *modules = sys.argv[1:]
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    stand_back(int(nice))
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # so that a child's collections do not copy what it shares
    child = Nursery(requests, answers).serve()
    if child is not None:
        run(child)


if __name__ == "__main__":
    main()
