"""Builds a device from an IOC's PVI structure by ophyd-async, uses it, and prints what it found as JSON: the prefix is
the argument. It needs ophyd-async, and nothing of this package."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from ophyd_async.core import Device, set_and_wait_for_value
from ophyd_async.epics.core import PviDeviceConnector, epics_signal_rw


async def main(prefix: str) -> dict[str, Any]:
    device: Any = Device(name="edge", connector=PviDeviceConnector(prefix))
    await device.connect(timeout=20)
    before = await device.quality.dose_scale.get_value()
    await device.quality.dose_scale.set(before + 1)
    changed = await device.quality.dose_scale.get_value()
    await device.quality.dose_scale.set(before)
    await device.scan.end_scan.trigger()
    command = epics_signal_rw(bool, f"pva://{prefix}EndScan", name="end_scan")
    await command.connect(timeout=20)
    await set_and_wait_for_value(command, True, timeout=20)
    phase = await device.pictures.phase.get_value()
    groups = {name: sorted(dict(child.children())) for name, child in device.children()}
    return {
        "groups": groups,
        "state": str(await device.model.state.get_value()),
        "changed": changed - before,
        "phase": [list(phase.shape), str(phase.dtype)],
        "message": await device.plugin.status_message.get_value(),
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1]))))
