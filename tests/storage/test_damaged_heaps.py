"""Files whose global heaps are damaged: libhdf5 would never come back from them, so each is opened in a child."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from file_commands import COMMANDS, run_command
from fuzz import scan_file
from hypothesis import example, given
from hypothesis import strategies as st

from ptychostream.errors import ScanFileError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.scans.phase_file import write_phase_image
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan_files import open_scan
from ptychostream.sim.diffraction import Simulation, simulate_scan
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES
from ptychostream.storage.hdf5_heaps import check_heaps, heap_fault

pytestmark = pytest.mark.server

TIMEOUT_S = 60.0
HEAD, OBJECT = 16, struct.Struct("<HHIQ")
SCAN = "entry/entry_identifier"


def scan_with_texts(path: Path) -> Path:
    """Its name and a unit are texts of variable length."""
    with h5py.File(path, "w") as file:
        scan_file.nexus(file)
        del file[SCAN]
        file[SCAN] = "scan 7"
        file["entry/instrument/detector/distance"].attrs["units"] = "m"
    return path


def collection(data: bytes) -> int:
    return data.index(b"GCOL")


def objects(data: bytes, at: int) -> list[tuple[int, int, int]]:
    """Place, index and length of each object of the collection at `at`."""
    found, place, end = [], at + HEAD, at + int.from_bytes(data[at + 8 : at + 16], "little")
    while place + OBJECT.size <= end:
        index, _, _, length = OBJECT.unpack_from(data, place)
        found.append((place, index, length))
        place += OBJECT.size + -(-length // 8) * 8 if index else length
    return found


def damage(path: Path, change: Callable[[bytearray, int], None]) -> Path:
    data = bytearray(path.read_bytes())
    change(data, collection(data))
    path.write_bytes(data)
    return path


def free_space_of(length: int) -> Callable[[bytearray, int], None]:
    def change(data: bytearray, at: int) -> None:
        place, index, _ = objects(data, at)[-1]
        assert index == 0
        struct.pack_into("<Q", data, place + 8, length)

    return change


def first_object_of(length: int) -> Callable[[bytearray, int], None]:
    return lambda data, at: struct.pack_into("<Q", data, objects(data, at)[0][0] + 8, length)


def collection_of(length: int) -> Callable[[bytearray, int], None]:
    return lambda data, at: struct.pack_into("<Q", data, at + 8, length)


ENDLESS = {
    "free space without a size": free_space_of(0),
    "free space of a byte": free_space_of(1),
    "free space of half a head": free_space_of(8),
    "an object that wraps around to nothing": first_object_of((1 << 64) - 16),
    "an object that wraps around to its head": first_object_of((1 << 64) - 1),
}
OTHER = {
    "an object beyond the collection": first_object_of(1 << 20),
    "a collection without a size": collection_of(0),
    "a collection beyond the file": collection_of(1 << 40),
}

READ = """
import sys
from pathlib import Path
from ptychostream.errors import ScanFileError
from {module} import {function} as read
try:
    read(Path(sys.argv[1]))
except ScanFileError as error:
    print(error)
"""
OPEN = READ.replace("read(Path(sys.argv[1]))", "with read(sys.argv[1]): print('opened')")


def said(program: str, *arguments: object, module: str = "", function: str = "") -> str:
    """What a program prints that would hang where the library's reader did."""
    code = program.format(module=module, function=function)
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, timeout=TIMEOUT_S
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("name", [*ENDLESS, *OTHER])
def test_a_damaged_heap_is_an_error_and_not_the_end(tmp_path: Path, name: str) -> None:
    path = damage(scan_with_texts(tmp_path / "scan.h5"), {**ENDLESS, **OTHER}[name])
    told = said(OPEN, path, module="ptychostream.scans.scan_files", function="open_scan")
    assert f"{path}: its global heap at byte {collection(path.read_bytes())} is damaged" in told
    assert "copy it again" in told


def test_a_sound_heap_is_read(tmp_path: Path) -> None:
    with open_scan(scan_with_texts(tmp_path / "scan.h5")) as scan:
        assert scan.scan_id == "scan 7"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    path = scan_with_texts(tmp_path / "scan.h5")
    with h5py.File(path, "r+") as file:
        odd = h5py.Group(h5py.h5g.create(file.id, b"\xff\xfe"))
        odd.attrs["odd"] = "text"
        for group in ("entry/instrument/NDAttributes", "entry/ptychostream"):
            file[f"{group}/odd"] = np.arange(3.0)
            file[group].id.move(b"odd", b"\xff")
    with open_scan(path) as scan:
        assert {str, *map(type, scan.metadata), *map(type, scan.metadata["attributes"])} == {str}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_end(tmp_path: Path, command: str) -> None:
    path = damage(scan_with_texts(tmp_path / "scan.h5"), free_space_of(0))
    ran = run_command(command, path, tmp_path, TIMEOUT_S)
    assert ran.returncode == 2
    assert "its global heap" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_agent_does_not_hang(tmp_path: Path) -> None:
    path = damage(scan_with_texts(tmp_path / "scan.h5"), free_space_of(0))
    program = """
import sys
from ptychostream.hpc_agent.scans.collect import CollectError, CollectSettings, ScanEvent, collect
try:
    collect(ScanEvent("7", sys.argv[1]), CollectSettings(quiet_s=0))
except CollectError as error:
    print(error.fault, error)
"""
    told = said(program, path)
    assert told.startswith("ScanFault.UNREADABLE")
    assert f"{path}: its global heap" in told


def test_reconstructions_phases_and_routes(tmp_path: Path) -> None:
    _, truth = simulate_scan(Simulation(frames=4))
    made, phase, route = (tmp_path / f"{name}.h5" for name in ("made", "phase", "route"))
    write_reconstruction(made, truth)
    zeros = np.zeros((4, 4), np.float32)
    write_phase_image(phase, PhaseImage(zeros, zeros, (0.0, 0.0), 1e-8))
    with h5py.File(route, "w") as file:
        file["x"], file["y"], file["note"] = [0.0], [0.0], "by hand"
    for path in (made, phase, route):
        damage(path, free_space_of(0))
    for path, module, function in (
        (made, "scans.reconstruction_file", "read_reconstruction"),
        (phase, "scans.phase_file", "read_phase_image"),
        (phase, "scans.phase_file", "read_provenance"),
        (route, "positions.route_file", "read_route"),
    ):
        assert "its global heap" in said(READ, path, module=f"ptychostream.{module}", function=function)


def test_inspect_of_a_reconstruction(tmp_path: Path) -> None:
    _, truth = simulate_scan(Simulation(frames=4))
    path = tmp_path / "made.h5"
    write_reconstruction(path, truth)
    damage(path, free_space_of(0))
    program = """
import sys
from ptychostream.scans.inspection import inspect_scan
print(inspect_scan(sys.argv[1]).error)
"""
    assert f"{path}: its global heap" in said(program, path)


def test_heaps_of_attributes_virtual_datasets_and_linked_files(tmp_path: Path) -> None:
    def attribute(file: h5py.File) -> None:
        file.create_group("deep/er").attrs["odd"] = "text"

    def texts(file: h5py.File) -> None:
        file["many"] = np.array([["a", "b"], ["c", "d"]], h5py.string_dtype())

    def virtual(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((3, 4, 4), "u2")
        layout[:] = h5py.VirtualSource("counts.h5", "counts", (3, 4, 4))
        file.create_virtual_dataset("counts", layout)

    def references(file: h5py.File) -> None:
        file["a"] = 1
        file.create_dataset("refs", (2,), h5py.regionref_dtype)[0] = file["a"].regionref[()]
        file["refs"].attrs["many"] = np.array(["x"], h5py.string_dtype())

    for number, layout in enumerate((attribute, texts, virtual, references)):
        path, outside = tmp_path / f"{number}.h5", tmp_path / f"outside{number}.h5"
        with h5py.File(path, "w") as file:
            layout(file)
        with h5py.File(outside, "w") as file:
            file["there"] = h5py.ExternalLink(path.name, "/")
        check_heaps(outside)
        damage(path, free_space_of(0))
        told = said(READ, outside, module="ptychostream.storage.hdf5_heaps", function="check_heaps")
        assert f"{path}: its global heap" in told


def steps_to_the_end(data: bytes) -> bool:
    """Whether libhdf5's own walk through a collection, in 64 bits, comes to an end."""
    place, seen = HEAD, set()
    while place < len(data):
        if place + OBJECT.size > len(data):
            return True
        if place in seen:
            return False
        seen.add(place)
        index, _, _, length = OBJECT.unpack_from(data, place)
        place += (OBJECT.size + ((length + 7) % (1 << 64) & ~7)) % (1 << 64) if index else length
    return True


heads = st.tuples(
    st.integers(0, 2), st.one_of(st.integers(0, 64), st.integers((1 << 64) - 40, (1 << 64) - 1)), st.binary(max_size=24)
).map(lambda one: OBJECT.pack(one[0], 0, 0, one[1]) + one[2])


@given(st.lists(heads, max_size=5).map(b"".join))
@example(OBJECT.pack(0, 0, 0, 0))
@example(OBJECT.pack(1, 0, 0, (1 << 64) - 16))
def test_what_is_called_sound_has_an_end(rest: bytes) -> None:
    data = bytes(HEAD) + rest
    if not heap_fault(data):
        assert steps_to_the_end(data)


def test_lengths_of_four_bytes() -> None:
    object_head = struct.Struct("<HHII4x")
    sound = bytes(HEAD) + object_head.pack(1, 0, 0, 3)[:16] + bytes(8) + object_head.pack(0, 0, 0, 40)[:16] + bytes(24)
    assert heap_fault(sound, 4) == ""
    assert "free space at its byte 40" in heap_fault(sound[:40] + bytes(40), 4)


def test_texts_that_unfold_beyond_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scan.h5"
    with h5py.File(path, "w") as file:
        scan_file.nexus(file)
        column = "entry/instrument/NDAttributes/odd"
        file.create_dataset(column, (1 << 20,), h5py.string_dtype(), chunks=(4096,), fillvalue="x" * 4000)
    assert path.stat().st_size < 1 << 16
    assert MAX_PART_BYTES < 4000 << 20
    with pytest.raises(ScanFileError, match="unfolds"), open_scan(path):
        pass
