"""What the processor is, read from texts as Linux gives them on x86 and on ARM."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ptychostream.plugins.engines import torch_engine
from ptychostream.processes import hardware

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu vme sse2 {flags} avx2
bugs\t\t: spectre_v1

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
BogoMIPS\t: 2100.00
Features\t: fp asimd evtstrm aes {flags} svebf16x
CPU implementer\t: 0x41

"""


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def write(text: str) -> None:
        (tmp_path / "cpuinfo").write_text(text)
        forget()

    def forget() -> None:
        hardware.cpu_flags.cache_clear()
        hardware.cpu_name.cache_clear()

    monkeypatch.setattr(hardware, "CPU_INFO", tmp_path / "cpuinfo")
    forget()
    yield write
    forget()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86.format(flags="avx512f"), False),
        (X86.format(flags="avx512f avx512_bf16"), True),
        (X86.format(flags="amx_tile amx_bf16"), True),
        (ARM.format(flags="asimdhp"), False),
        (ARM.format(flags="i8mm bf16"), True),
    ],
    ids=["x86", "AVX-512", "AMX", "ARM", "ARM with bf16"],
)
def test_bfloat16_in_hardware(cpuinfo: Callable[[str], None], text: str, expected: bool) -> None:
    cpuinfo(text)
    assert hardware.has_bfloat16() is expected
    assert (torch_engine.has_bfloat16() is expected) and "bf" not in hardware.cpu_name()


def test_a_processor_that_is_not_known_has_a_name_and_nothing_else(cpuinfo: Callable[[str], None]) -> None:
    assert hardware.cpu_flags() == frozenset() and not hardware.has_bfloat16() and hardware.cpu_name()
    cpuinfo(X86.format(flags=""))
    assert hardware.cpu_name() == "Intel(R) Xeon(R) Platinum 8488C"


def test_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert hardware.cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert hardware.cores() == (os.cpu_count() or 1)
