"""A Slurm of one node, this machine, for a test: no systemd, nothing outside a temporary folder, gone afterwards.

Needs root, and Debian's slurmctld, slurmd, slurm-client and munge, which it installs by apt where they are missing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
COMMANDS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "munged")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def install() -> None:
    """See that the commands are there. RuntimeError where they are not and cannot be had."""
    missing = [command for command in COMMANDS if shutil.which(command) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise RuntimeError(f"{', '.join(missing)}: install {' '.join(PACKAGES)}, or run this as root on Debian")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        ended = subprocess.run(["apt-get", "-q", *words], env=quiet, capture_output=True, text=True, timeout=600)
        if ended.returncode:
            raise RuntimeError(f"apt-get {words[0]} failed: {ended.stdout[-1000:]}{ended.stderr[-1000:]}")


class SlurmNode:
    """The daemons. Its `environment` points Slurm's commands at them."""

    def __init__(self, folder: Path) -> None:
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        self._folder = folder
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self._folder.chmod(0o755)
        munge = pwd.getpwnam("munge")
        own = self._folder / "munge"
        own.mkdir()
        key = own / "key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o400)
        for path in (own, key):
            os.chown(path, munge.pw_uid, munge.pw_gid)
        for name in ("state", "spool"):
            (self._folder / name).mkdir()
        ports = dict(zip(("controller_port", "node_port"), _free_ports(2), strict=True))
        host = socket.gethostname().split(".")[0]
        text = CONFIGURATION.format(host=host, folder=self._folder, cores=os.cpu_count(), **ports)
        (self._folder / "slurm.conf").write_text(text)
        files = [f"--{name}-file={own}/{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={own}/socket", *files, user="munge")
        _until(lambda: (own / "socket").exists(), 20, self.logs)
        self._daemon("slurmctld", "-D", "-f", self.environment["SLURM_CONF"])
        self._daemon("slurmd", "-D", "-f", self.environment["SLURM_CONF"], "-N", host)
        _until(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%T", check=False), 30, self.logs)

    def _daemon(self, *command: str, user: str | None = None) -> None:
        with (self._folder / f"{command[0]}.out").open("wb") as output:
            self._daemons.append(
                subprocess.Popen(
                    command,
                    user=user,
                    group=user,
                    extra_groups=[] if user else None,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **self.environment},
                )
            )

    def run(self, *command: str, check: bool = True) -> str:
        """A command of Slurm's; its output."""
        environment = {**os.environ, **self.environment}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        if check and ended.returncode:
            raise RuntimeError(f"{' '.join(command)}: {ended.stderr}")
        return ended.stdout

    def jobs(self) -> list[str]:
        """Ids of the jobs that wait or run."""
        return self.run("squeue", "--noheader", "--format=%i").split()

    def state(self, job: str) -> str:
        """Of a job, as "RUNNING" or "TIMEOUT"."""
        words = self.run("scontrol", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith("JobState="))

    def logs(self) -> str:
        return "\n".join(f"{path.name}:\n{path.read_text()[-1500:]}" for path in self._folder.rglob("*.*o[gu][t]*"))

    def stop(self) -> None:
        """End every job and every daemon."""
        if len(self._daemons) == 3 and self._daemons[1].poll() is None:
            with contextlib.suppress(RuntimeError, subprocess.TimeoutExpired):
                for job in self.jobs():
                    self.run("scancel", job, check=False)
                _until(lambda: not self.jobs(), 20, lambda: f"jobs that do not end: {self.jobs()}")
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


@contextlib.contextmanager
def slurm_node() -> Iterator[SlurmNode]:
    """A node that runs."""
    install()
    folder = Path(tempfile.mkdtemp(prefix="ptychostream-slurm-"))  # short: sockets' names are limited
    node = SlurmNode(folder)
    try:
        node.start()
        yield node
    finally:
        node.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _until(true: Callable[[], bool], timeout_s: float, what: Callable[[], str]) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {timeout_s} s: {what()}")
        time.sleep(0.1)
