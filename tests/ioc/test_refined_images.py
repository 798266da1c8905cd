"""The refined images by themselves: squares by the rules of Phase, each change of size sent twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from image_sources import PIXEL_M, RefinedSource
from ioc_helpers import attributes_of
from p4p.client.thread import Context

from ptychostream.imaging.phase_image import canvas_part
from ptychostream.ioc.images.refined_images import PROBE, REFINED_IMAGES, RefinedImages
from ptychostream.pva.server import serve

pytestmark = pytest.mark.server

P = "ref:"


class Stand:
    """The images, a client of `Refined`, and what it saw: (uniqueId, side)."""

    def __init__(self, env: EpicsEnv) -> None:
        self.env, self.source = env, RefinedSource()
        self.images = RefinedImages(P, self.source, lambda name: f"sha of {name}", lambda: self.source.runs, (32, 32))  # type: ignore[arg-type]
        with env.active():
            self._server = serve([self.images.open()], 0)
        self.seen: list[tuple[int, int]] = []
        self._context = Context("pva", conf=env.epics, useenv=False, nt=False)
        request = "record[queueSize=100]field(uniqueId,dimension)"
        self._watch = self._context.monitor(P + "Refined", self._note, request=request)
        wait_until(lambda: self.seen, 10, "the first image")

    def _note(self, value: Any) -> None:
        columns, rows = (dimension.size for dimension in value.dimension)
        assert columns == rows
        self.seen.append((value.uniqueId, columns))

    def serve(self, posts: int) -> None:
        """Serve, and wait until the client has as many images more."""
        before = len(self.seen)
        self.images.serve()
        wait_until(lambda: len(self.seen) == before + posts, 10, lambda: str((before, self.seen)))

    def close(self) -> None:
        self._watch.close()
        self._context.close()
        self._server.stop()


@pytest.fixture
def stand() -> Iterator[Stand]:
    with EpicsEnv() as env:
        stand = Stand(env)
        yield stand
        stand.close()


def pixels(value: Any) -> np.ndarray[Any, Any]:
    columns, rows = (dimension.size for dimension in value.dimension)
    return np.asarray(value.value).reshape(rows, columns)


def test_every_attribute_is_there_before_the_first_image_and_the_size_is_not_1(stand: Stand) -> None:
    before = {name: stand.env.pvget(P + name) for name in REFINED_IMAGES}
    assert {name: pixels(value).shape for name, value in before.items()} == {
        "Refined": (128, 128),
        "RefinedAmplitude": (128, 128),
        "Probe": (32, 32),
    }
    stand.source.show(1, 40)
    stand.serve(1)
    for name, value in before.items():
        assert set(attributes_of(value)) == set(attributes_of(stand.env.pvget(P + name))), name


def test_the_image_lies_in_its_square_and_its_attributes_say_where(stand: Stand) -> None:
    stand.source.show(1, 40)
    stand.serve(1)
    for name, offset in (("Refined", 0), ("RefinedAmplitude", 1)):
        value = stand.env.pvget(P + name)
        shown, told = pixels(value), attributes_of(value)
        rows, columns = part = canvas_part(told)
        assert shown[part].shape == (40, 40)
        assert shown[part][0, 0] == np.float32(0.25 + offset)
        fill = np.float32(told["FillValue"])
        assert shown[part][-1, -1] == fill and 0.25 + offset < fill < 0.5 + offset
        outside = np.ones(shown.shape, np.bool_)
        outside[part] = False
        assert set(shown[outside].tolist()) == {float(fill)}
        assert (value.codec.name, value.codec.parameters) == ("", None)
        assert told["OriginX"] + columns.start * PIXEL_M == pytest.approx(0.0, abs=1e-15)
        assert told["OriginY"] + rows.start * PIXEL_M == pytest.approx(0.0, abs=1e-15)
    left, right, top, bottom = stand.images.area.image_um
    assert right - left == pytest.approx(bottom - top) == pytest.approx(128 * PIXEL_M * 1e6)
    assert pixels(stand.env.pvget(P + PROBE))[0, 0] == pytest.approx(np.sqrt(2))


def test_a_growing_scan_changes_the_size_four_times_at_most_and_the_next_one_never(stand: Stand) -> None:
    for run in (1, 2):
        start = len(stand.seen) - 1
        for side in range(32, 700, 24):
            before = stand.images.area.shape
            stand.source.show(run, side)
            stand.serve(1)
            if stand.images.area.shape != before:
                stand.serve(1)  # once more: the same image
                assert stand.seen[-1] == stand.seen[-2]
            stand.serve(0)
        stand.source.run(run, active=False)
        trimmed = run == 1
        stand.serve(1)
        if trimmed:
            stand.serve(1)
        stand.serve(0)
        sides = [side for _, side in stand.seen[start:]]
        changes = sum(one != other for one, other in itertools.pairwise(sides))
        assert (changes, sides[-1] < 1.12 * 700) == ((4 if run == 1 else 0, True)), sides


def test_a_scan_is_not_finished_while_a_frame_of_it_waits(stand: Stand) -> None:
    stand.source.show(1, 32)
    stand.source.queued += 1
    stand.source.run(1, active=False)
    stand.serve(1)
    side = stand.images.area.shape
    stand.source.queued -= 1
    stand.serve(1)
    assert stand.images.area.shape < side
