"""Runs a plan of `ptychostream.bluesky` in a RunEngine and prints its result and its documents as JSON.

The argument is an order as JSON: `edge` and `beamline` are prefixes, `plan` names a function of this module, `options`
are its arguments. It needs the extra `bluesky`."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from bluesky.utils import MsgGenerator
from ophyd_async.core import init_devices, set_and_wait_for_value
from ophyd_async.epics.core import epics_signal_rw

from ptychostream.bluesky.beamline import SimulatedBeamline
from ptychostream.bluesky.edge import PtychoEdge
from ptychostream.bluesky.plans import adaptive_scan, awaited, repeat_until_good, simulated_points, stitched


def repeat(
    edge: PtychoEdge, beamline: SimulatedBeamline, *, dose: float, better: float, reference: str, **options: Any
) -> MsgGenerator[Any]:
    """Repeat a scan of one sample until it is good; `better` is the dose of the repetitions."""

    def improve(_taken: int, _ssim: float) -> MsgGenerator[None]:
        yield from bps.abs_set(beamline.dose, better, wait=True)

    yield from bps.abs_set(edge.quality.ssim_reference, reference, wait=True)
    yield from bps.abs_set(beamline.same_sample, True, wait=True)
    yield from bps.abs_set(beamline.dose, dose, wait=True)
    return (yield from repeat_until_good(edge, beamline, improve=improve, **options))


def adaptive(
    edge: PtychoEdge, beamline: SimulatedBeamline, *, points_um: list[list[float]], **options: Any
) -> MsgGenerator[Any]:
    """An adaptive scan of the simulated beamline; gives the indices of its points."""
    points_m = np.array(points_um) * 1e-6
    scan = yield from adaptive_scan(edge, simulated_points(beamline), points_m, devices=(beamline,), **options)
    return np.flatnonzero(scan.measured).tolist()


def waits(edge: PtychoEdge, _beamline: SimulatedBeamline, *, scan: str) -> MsgGenerator[None]:
    """Wait for a scan."""
    yield from stitched(edge, scan)


def commands(edge: PtychoEdge, _beamline: SimulatedBeamline, *, names: list[str]) -> MsgGenerator[Any]:
    """Every command in each of the ways of ophyd-async; gives the ways that failed."""
    failed: list[str] = []

    async def each() -> None:
        for name in names:
            signal = epics_signal_rw(bool, f"pva://{edge.prefix}{name}", name=name)
            await signal.connect(timeout=20)
            ways = {
                "set(True)": lambda signal=signal: signal.set(True),
                "set and wait for value": lambda signal=signal: set_and_wait_for_value(signal, True, timeout=20),
            }
            for way, act in ways.items():
                try:
                    await act()
                    if await signal.get_value(cached=False):
                        failed.append(f"{name}: {way} leaves it at 1")
                except Exception as error:  # noqa: BLE001 - the test reads what failed
                    failed.append(f"{name}: {way}: {error!r}")
        for group, device in edge.children():
            for name, child in dict(device.children()).items():
                if hasattr(child, "trigger"):
                    try:
                        await child.trigger(timeout=20)
                    except Exception as error:  # noqa: BLE001
                        failed.append(f"{group}.{name}: trigger: {error!r}")

    yield from awaited(each)
    return failed


PLANS = {"repeat": repeat, "adaptive": adaptive, "commands": commands, "waits": waits}


def main(order: dict[str, Any]) -> dict[str, Any]:
    engine = RunEngine(context_managers=[])
    documents: list[tuple[str, dict[str, Any]]] = []
    engine.subscribe(lambda name, document: documents.append((name, document)))
    with init_devices(timeout=30):
        edge = PtychoEdge(order["edge"], timeout_s=order.get("timeout_s", 30.0))
        beamline = SimulatedBeamline(order["beamline"])
    result: dict[str, Any] = {"returned": None, "error": ""}

    def whole() -> MsgGenerator[None]:
        result["returned"] = yield from PLANS[order["plan"]](edge, beamline, **order["options"])

    try:
        engine(whole())
    except Exception as error:  # noqa: BLE001 - the test reads it
        result["error"] = f"{type(error).__name__}: {error}"
    return {**result, "documents": documents}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1])), default=str))
