"""Runs Python code in a process that the kernel kills when it opens an internet socket, in any thread or child."""

from __future__ import annotations

import platform
import subprocess
import sys

_GUARD = """
import ctypes, struct
SOCKET, ARCH = {"x86_64": (41, 0xC000003E), "aarch64": (198, 0xC00000B7)}[MACHINE]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
KILL, ALLOW = 0x80000000, 0x7FFF0000
program = [
    (LOAD, 0, 0, 4), (EQUAL, 0, 5, ARCH),        # another architecture: allowed, nothing here uses it
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, SOCKET),      # another call: allowed
    (LOAD, 0, 0, 16), (EQUAL, 2, 0, 2), (EQUAL, 1, 0, 10),  # AF_INET, AF_INET6
    (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL),
]
code = b"".join(struct.pack("=HBBI", *line) for line in program)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
held = Program(len(program), code)
assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
assert libc.prctl(22, 2, ctypes.byref(held), 0, 0) == 0, "PR_SET_SECCOMP"
"""


def run_without_network(code: str, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """The end of a process that runs `code`; its status is -SIGSYS where it opened an internet socket."""
    guarded = f"import sys\nsys.path.insert(0, {path!r})\nMACHINE = {platform.machine()!r}\n{_GUARD}\n{code}"
    return subprocess.run([sys.executable, "-c", guarded, *arguments], capture_output=True, text=True, timeout=200)
