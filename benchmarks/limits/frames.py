"""Broken frames and too many of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.benchmarks.limits.models import Act, refusal
from ptychostream.errors import DropCause
from ptychostream.frames.codecs import compress
from ptychostream.frames.frames import Frame
from ptychostream.model.raw_shape import shape_judge
from ptychostream.plugins.engines.plain import plain_contract
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import WaveformPositions
from ptychostream.pva.reading import decode_taken

_CONTRACT = plain_contract((128, 128), 1e-8)
_UINT16 = 6


def wrong_size(_: Path) -> Act:
    """A large frame that compresses well."""
    packed = ("lz4", _UINT16, 0, 2 * 16384 * 16384, False)
    payload = compress(np.zeros((4096, 4096), np.uint16), "lz4")
    update: tuple[Any, ...] = (1, 1.0, payload, 5, 16384, 16384, {}, packed)
    return lambda: refusal(lambda: decode_taken(update, (), shape_judge(_CONTRACT)))


def cut_payload(_: Path) -> Act:
    """Half of a payload."""
    payload = compress(np.random.default_rng(0).integers(0, 9, (128, 128), np.uint16), "lz4")
    update: tuple[Any, ...] = (
        1,
        1.0,
        payload[: len(payload) // 2],
        5,
        128,
        128,
        {},
        ("lz4", _UINT16, 0, 2 * 128 * 128, False),
    )
    return lambda: refusal(lambda: decode_taken(update, (), shape_judge(_CONTRACT)))


def without_positions(_: Path) -> Act:
    """Frames that wait for positions which never come."""
    pipeline = Pipeline(PipelineSettings(queue_memory=384.0), WaveformPositions())

    def act() -> str:
        for number in range(100):
            counts = np.ones((2048, 2048), np.uint16)
            pipeline.submit(Frame("s", number, float(number), counts, {}))
        seen = pipeline.snapshot()
        assert seen.law_holds
        dropped = seen.dropped[DropCause.NO_POSITION]
        return f"{seen.waiting_position} wait with {seen.queue_memory_used:.0f} MiB, {dropped} dropped as NoPosition"

    return act
