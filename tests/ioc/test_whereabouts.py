"""The records of iocStats that say where the IOC runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from epics_env import IOC_FOLDER, EpicsEnv

pytestmark = pytest.mark.server

P = "at:"


def test_host_process_and_folder_are_those_of_the_ioc() -> None:
    with EpicsEnv() as env:
        where = {**env.server_env(), "ENGINEER": "Jane", "LOCATION": "26-ID"}
        with env.start_ioc("--prefix", P, "--engine", "None", env=where, wait="up") as ioc:
            found = {
                name: env.caget(P + name) for name in ("HOSTNAME", "PROCESS_ID", "PARENT_ID", "ENGINEER", "LOCATION")
            }
            assert found == {
                "HOSTNAME": socket.gethostname()[:39],
                "PROCESS_ID": ioc.popen.pid,
                "PARENT_ID": os.getpid(),
                "ENGINEER": "Jane",
                "LOCATION": "26-ID",
            }
            assert env.caget(f"{P}KERNEL_VERS").startswith("Linux ")
            assert Path(env.caget(f"{P}APP_DIR")).samefile(IOC_FOLDER)
            assert env.caget(f"{P}APP_DIR").startswith(env.caget(f"{P}APP_DIR1"))
            assert env.caget(f"{P}SUSP_TASK_CNT") == 0
            assert [env.caget(f"{P}{name}_UPD_TIME") for name in ("CA", "FD", "LOAD", "MEM")] == [15, 10, 20, 10]
            assert ioc.stop() == 0, ioc.output
