"""The corpus's recorded part: programs that send NTNDArrays, each run for real in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CHANNEL = "corpus:Image"

# A line on stdin is the word to go on: nothing is sent before somebody listens.
_P4P = """
import sys
import numpy as np
from p4p.nt import NTNDArray, NTScalar
from p4p.server import Server
from p4p.server.thread import SharedPV
pv = SharedPV(initial=NTNDArray.buildType()())
with Server(providers=[{"corpus:Image": pv}]):
    print("up", flush=True)
    sys.stdin.readline()
    random = np.random.default_rng(5)
    for number, dtype in enumerate(("uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32")):
        counts = random.poisson(30, (6, 8)).astype(dtype)
        attributes = {"PositionX": 1.5e-6 * number, "ScanID": "s5", "n": number, "name": NTScalar("d").wrap(2.5)}
        value = NTNDArray().wrap(counts, attrib=attributes, timestamp=1.7e9 + number)
        value.uniqueId = number + 1
        value.codec.name = ""
        pv.post(value)
    pv.post(NTNDArray().wrap(np.zeros((6, 8, 3), np.uint8), timestamp=1.7e9 + 9))
    sys.stdin.readline()
"""

_P4P_BARE = """
import sys
import numpy as np
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV
pv = SharedPV(nt=NTNDArray(), initial=np.arange(48, dtype=np.uint16).reshape(6, 8))
with Server(providers=[{"corpus:Image": pv}]):
    print("up", flush=True)
    sys.stdin.readline()
    for number in range(1, 4):
        pv.post(np.arange(48, dtype=np.uint16).reshape(6, 8) + number, timestamp=1.7e9 + number)
    sys.stdin.readline()
"""

# Every kind of field there is, nested: no NTNDArray, but what a recording must keep.
_P4P_EVERYTHING = """
import sys
import numpy as np
from p4p import Type, Value
from p4p.server import Server
from p4p.server.thread import SharedPV
numbers = "?bBhHiIlLfd"
kind = Type(
    [(f"scalar_{ord(c)}", c) for c in numbers + "s"]
    + [(f"array_{ord(c)}", "a" + c) for c in numbers + "s"]
    + [
        ("any", "v"), ("any_array", "v"), ("any_structure", "v"), ("any_none", "v"), ("anys", "av"),
        ("union", ("U", None, [("a", "i"), ("b", ("S", "inner_t", [("q", "d")]))])),
        ("union_none", ("U", "named_t", [("a", "i")])),
        ("unions", ("aU", "un_t", [("a", "i"), ("b", "as")])),
        ("structure", ("S", "my_t", [("x", "f"), ("deep", ("S", "deep_t", [("y", "v")]))])),
        ("structures", ("aS", "el_t", [("x", "f"), ("v", "v")])),
    ],
    id="everything:1.0",
)
values = {
    "any": 5, "any_array": np.arange(3, dtype="i2"), "any_structure": Value(Type([("z", "d")], id="zz"), {"z": 1.0}),
    "anys": [1, "x", np.float32([0.1])], "union": ("b", {"q": 3.0}), "unions": [("a", 4), ("b", ["x", "µ"])],
    "structure": {"x": 0.1, "deep": {"y": "text"}}, "structures": [{"x": 1, "v": 3}, {"x": float("nan"), "v": "s"}],
}
values |= {f"scalar_{ord(c)}": 1 if c == "?" else -7 if c.islower() else 200 for c in numbers}
values |= {f"array_{ord(c)}": np.array([1, 0, 100]) for c in numbers}
values |= {"scalar_115": "grün", "array_115": ["", "b"]}
pv = SharedPV(initial=kind())
with Server(providers=[{"corpus:Image": pv}]):
    print("up", flush=True)
    sys.stdin.readline()
    pv.post(Value(kind, values))
    pv.post(Value(kind, {"scalar_105": 6, "union": ("a", 1)}))
    sys.stdin.readline()
"""

_PVAPY = """
import sys
import numpy as np, pvaccess as pva
from ptychostream.sim.replay.ntndarray import build
server = pva.PvaServer()
server.addRecord("corpus:Image", pva.NtNdArray(), None)
print("up", flush=True)
sys.stdin.readline()
random = np.random.default_rng(6)
for number, codec in enumerate(("", "lz4", "bslz4", "blosc", "zlib", "lz4hdf5"), start=1):
    counts = random.poisson(30, (6, 8)).astype(np.uint16)
    attributes = {"PositionX": 1.5e-6, "PositionY": -2.0, "ScanID": "s6", "ScanComplete": int(number == 6)}
    server.update("corpus:Image", build(counts, number, 1.7e9 + number, attributes, codec))
sys.stdin.readline()
"""

# QSRV 2 of a C IOC: records grouped into an NTNDArray, as EPICS's own image example does.
QSRV_DATABASE = """
record(waveform, "corpus:Data") {
    field(FTVL, "USHORT") field(NELM, "48")
    field(INP, {const: [1,2,3,4,5,6,7,8, 9,10,11,12,13,14,15,16, 17,18,19,20,21,22,23,24,
                        25,26,27,28,29,30,31,32, 33,34,35,36,37,38,39,40, 41,42,43,44,45,46,47,65535]})
    info(Q:group, {"corpus:Image": {
        "+id": "epics:nt/NTNDArray:1.0",
        "value": {"+type": "any", "+channel": "VAL", "+trigger": "*"},
        "": {"+type": "meta", "+channel": "SEVR"},
        "x": {"+type": "proc", "+channel": "PROC"}
    }})
}
record(longout, "corpus:Width") {
    field(VAL, "8")
    info(Q:group, {"corpus:Image": {"dimension[0].size": {"+channel": "VAL", "+type": "plain", "+putorder": 0}}})
}
record(longout, "corpus:Height") {
    field(VAL, "6")
    info(Q:group, {"corpus:Image": {"dimension[1].size": {"+channel": "VAL", "+type": "plain", "+putorder": 0}}})
}
record(stringin, "corpus:ColorMode_") {
    field(VAL, "ColorMode")
    info(Q:group, {"corpus:Image": {"attribute[0].name": {"+type": "plain", "+channel": "VAL"}}})
}
"""


@dataclass(frozen=True)
class Emitter:
    """A program, and how much of it to record.

    Attributes
    ----------
    command
        Of the folder that it may write to.
    channel
        That it serves.
    updates
        To record.
    told
        Whether it sends when it gets a line, else by itself.
    """

    emitter: str
    source: str
    about: str
    command: Callable[[Path], list[str]]
    updates: int
    told: bool = True
    channel: str = CHANNEL


def _program(text: str) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, "-c", text]


def _ad_sim_server(*arguments: str) -> Callable[[Path], list[str]]:
    start = "from pvapy.cli.adSimServer import main; main()"
    common = ("-cn", CHANNEL, "-fps", "20", "-rt", "6", "-std", "4", "-shd", "0", "-dc")
    return lambda _: [sys.executable, "-c", start, *common, *arguments]


def _ad_sim_server_of_hdf5(folder: Path) -> list[str]:
    import h5py
    import hdf5plugin

    path = folder / "frames.h5"
    with h5py.File(path, "w") as file:
        options = hdf5plugin.Bitshuffle(cname="lz4")
        file.create_dataset("data", data=hdf5_counts(), chunks=(1, 16, 24), **options)
    return _ad_sim_server("-if", str(path), "-hds", "data", "-hcm")(folder)


def hdf5_counts() -> NDArray[np.uint16]:
    """What the HDF5 file of the simulated detector holds, [frame, 16, 24]."""
    return np.random.default_rng(8).poisson(3, (4, 16, 24)).astype(np.uint16)


def _qsrv(folder: Path) -> list[str]:
    path = folder / "image.db"
    path.write_text(QSRV_DATABASE, encoding="ascii")
    return [sys.executable, "-m", "pvxslibs.ioc", "-d", str(path)]


EMITTERS = {
    "p4p_wrap": Emitter(
        "p4p", "p4p.nt.NTNDArray.wrap", "ids set, every type it knows, an RGB image", _program(_P4P), 10
    ),
    "p4p_shared_pv": Emitter(
        "p4p", "p4p.server.thread.SharedPV(nt=NTNDArray())", "as it is: every uniqueId is 0", _program(_P4P_BARE), 4
    ),
    "p4p_everything": Emitter(
        "p4p", "p4p.Type", "every kind of field, no NTNDArray; an update of two fields", _program(_P4P_EVERYTHING), 3
    ),
    "pvapy_build": Emitter("pvaPy", "ptychostream.sim.replay.ntndarray.build", "our own frames", _program(_PVAPY), 7),
    "pvapy_ad_sim_server": Emitter(
        "pvapy-ad-sim-server",
        "pvapy.cli.adSimServer -dt uint16",
        "pvaPy's simulated detector",
        _ad_sim_server("-nx", "8", "-ny", "6", "-dt", "uint16", "-nf", "8"),
        5,
        told=False,
    ),
    "pvapy_ad_sim_server_bslz4": Emitter(
        "pvapy-ad-sim-server",
        "pvapy.cli.adSimServer -hcm",
        "compressed chunks of an HDF5 file sent on as they are, with the filter's header",
        _ad_sim_server_of_hdf5,
        5,
        told=False,
    ),
    "qsrv_group": Emitter(
        "EPICS IOC, QSRV 2", "pvxslibs.ioc with Q:group", "an image of grouped records: any, no ids", _qsrv, 1
    ),
}
