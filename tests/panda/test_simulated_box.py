"""The simulated PandABox as pandablocks' own client sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pandablocks.asyncio import AsyncioClient
from pandablocks.commands import (
    Arm,
    CommandError,
    Disarm,
    Get,
    GetBlockInfo,
    GetChanges,
    GetFieldInfo,
    GetPcapBitsLabels,
    GetState,
    Put,
)  # fmt: skip
from pandablocks.responses import EndData, EndReason, FrameData, PosOutFieldInfo, ReadyData, StartData

from ptychostream.sim.panda.box import SimulatedPanda

pytestmark = [pytest.mark.server, pytest.mark.timeout(60)]
TIMES = np.arange(20) * 1e-3
ROWS = {"INENC1.VAL": np.arange(20.0), "INENC2.VAL": -0.5 * np.arange(20.0), "PCAP.TS_TRIG": TIMES}


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedPanda]:
    """The client knows the two ports by heart: they are led to the simulated ones."""
    with SimulatedPanda() as box:
        ports, connect = {8888: box.control_port, 8889: box.data_port}, asyncio.open_connection
        monkeypatch.setattr(asyncio, "open_connection", lambda host, port: connect(host, ports[port]))
        yield box


def test_introspection(box: SimulatedPanda) -> None:
    async def ask() -> tuple[Any, ...]:
        async with AsyncioClient("127.0.0.1") as client:
            blocks = await client.send(GetBlockInfo(), 5)
            fields = {name: await client.send(GetFieldInfo(name), 5) for name in blocks}
            changes = [await client.send(GetChanges(get_multiline=True), 5) for _ in range(2)]
            await client.send(Put("INENC1.VAL.UNITS", "um"), 5)
            changes.append(await client.send(GetChanges(get_multiline=True), 5))
            bits, identity = await client.send(GetPcapBitsLabels(), 5), await client.send(Get("*IDN"), 5)
        async with AsyncioClient("127.0.0.1") as another:
            return blocks, fields, changes, bits, await another.send(GetState(), 5), identity

    blocks, fields, changes, bits, state, identity = asyncio.run(ask())
    assert {name: block.number for name, block in blocks.items()} == {"INENC": 4, "PCAP": 1, "TTLIN": 2}
    encoder = fields["INENC"]["VAL"]
    assert isinstance(encoder, PosOutFieldInfo)
    assert encoder.capture_labels == ["No", "Value", "Mean"]
    assert next(iter(fields["PCAP"])) == "ENABLE"
    assert changes[0].values["INENC4.VAL.CAPTURE"] == "No"
    assert not changes[0].in_error
    assert not changes[1].values
    assert changes[2].values == {"INENC1.VAL.UNITS": "um"}
    assert len(bits["PCAP.BITS0"]) == 32
    assert "INENC1.VAL.UNITS=um" in state
    assert identity.startswith("PandA SW: ")


@pytest.mark.parametrize("scaled", [True, False])
def test_captures(box: SimulatedPanda, scaled: bool) -> None:
    async def capture() -> list[Any]:
        heard: list[Any] = []
        async with AsyncioClient("127.0.0.1") as client:
            with pytest.raises(CommandError, match="Nothing configured for capture"):
                await client.send(Arm(), 5)
            for path, value in (
                ("INENC1.VAL.CAPTURE", "Value"), ("INENC1.VAL.SCALE", "0.25"), ("INENC1.VAL.UNITS", "um"),
                ("INENC2.VAL.CAPTURE", "Mean"), ("INENC2.VAL.SCALE", "0.5"), ("INENC2.VAL.OFFSET", "3"),
                ("PCAP.TS_TRIG.CAPTURE", "Value"), ("PCAP.BITS0.CAPTURE", "Value"),
            ):  # fmt: skip
                await client.send(Put(path, value), 5)
            with pytest.raises(CommandError, match="No such field"):
                await client.send(Put("INENC9.VAL.CAPTURE", "Value"), 5)
            async for data in client.data(scaled=scaled):
                heard.append(data)
                if isinstance(data, ReadyData):
                    await client.send(Arm(), 5)
                    with pytest.raises(CommandError, match="Data capture already in progress"):
                        await client.send(Arm(), 5)
                    box.rows(ROWS)
                    box.rows(ROWS)
                    await client.send(Disarm(), 5)
                if isinstance(data, EndData):
                    if len([one for one in heard if isinstance(one, EndData)]) == 2:
                        break
                    box.arm()
                    box.end("Data overrun")
        return heard

    heard = asyncio.run(capture())
    starts = [one for one in heard if isinstance(one, StartData)]
    assert starts[0].arm_time != starts[1].arm_time
    assert (starts[0].missed, starts[0].process) == (0, "Scaled" if scaled else "Raw")
    assert {field.name: field.units for field in starts[0].fields}["INENC1.VAL"] == "um"
    rows = np.concatenate([one.data for one in heard if isinstance(one, FrameData)])
    assert len(rows) == 40
    factor = 1 if scaled else 4
    np.testing.assert_array_equal(rows["INENC1.VAL.Value"][:20], np.arange(20.0) * factor)
    means = rows["INENC2.VAL.Mean"][:20]
    if not scaled:  # a sum over the ticks of the gate
        means = means * 0.5 / rows["PCAP.GATE_DURATION.Value"][:20] + 3
    np.testing.assert_allclose(means, ROWS["INENC2.VAL"])
    np.testing.assert_allclose(rows["PCAP.TS_TRIG.Value"][:20], TIMES if scaled else np.rint(TIMES / 8e-9))
    ends = [one for one in heard if isinstance(one, EndData)]
    assert [(one.samples, one.reason) for one in ends] == [(40, EndReason.DISARMED), (0, EndReason.DATA_OVERRUN)]


def test_a_client_that_comes_late_is_told_what_it_missed(box: SimulatedPanda) -> None:
    box.put("INENC1.VAL.CAPTURE", "Value")
    box.arm()
    box.rows(ROWS)

    async def capture() -> list[Any]:
        heard: list[Any] = []
        async with AsyncioClient("127.0.0.1") as client:
            async for data in client.data():
                heard.append(data)
                if isinstance(data, StartData):
                    box.rows(ROWS)
                    box.end()
                if isinstance(data, EndData):
                    return heard
        raise AssertionError

    heard = asyncio.run(capture())
    assert [type(one).__name__ for one in heard] == ["ReadyData", "StartData", "FrameData", "EndData"]
    assert (heard[1].missed, len(heard[2].data), heard[3].samples) == (20, 20, 20)
