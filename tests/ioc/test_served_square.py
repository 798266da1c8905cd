"""Served images are squares, which change their size at most four times in a scan."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.ioc.images.square import ServedSquare

PATCH = 64


def patch(row: int, column: int, side: int = PATCH) -> PixelBox:
    return PixelBox(row, column, row + side, column + side)


def raster(rows: int, columns: int, step: int) -> Iterator[PixelBox]:
    for row, column in itertools.product(range(rows), range(columns)):
        yield patch(row * step, column * step)


def spiral(points: int, step: float) -> Iterator[PixelBox]:
    for n in range(points):
        radius, angle = step * np.sqrt(n), n * 2.399963
        yield patch(round(radius * np.sin(angle)), round(radius * np.cos(angle)))


def served(square: ServedSquare, patches: Iterator[PixelBox], scan: object) -> list[PixelBox]:
    """The boxes of a scan's images, the finished one included; each is a square that holds the canvas."""
    used: PixelBox | None = None
    boxes = []
    for one in patches:
        used = one if used is None else used.union(one)
        boxes.append(square.fit(used, scan, False))
        assert boxes[-1].contains(used)
    assert used is not None
    boxes.append(square.fit(used, scan, True))
    assert boxes[-1].contains(used)
    assert all(box.shape[0] == box.shape[1] for box in boxes)
    return boxes


def sizes(boxes: list[PixelBox]) -> list[int]:
    return [side for side, _ in itertools.groupby(box.shape[0] for box in boxes)]


def scans() -> dict[str, Iterator[PixelBox]]:
    return {
        "small": raster(5, 5, 8),
        "raster": raster(20, 30, 40),
        "line": raster(1, 100, 60),
        "far": raster(40, 60, 120),
        "spiral": spiral(2000, 25),
        "one": iter([patch(3, 4)]),
    }


@pytest.mark.parametrize("name", scans())
def test_a_growing_scan_changes_the_size_at_most_four_times_and_its_repeat_never(name: str) -> None:
    square = ServedSquare(PATCH)
    first = served(square, scans()[name], 1)
    assert len(sizes(first)) <= 5
    used = max(1, *(max(box.shape) for box in scans()[name]))
    assert first[-1].shape[0] >= used
    second = served(square, scans()[name], 2)
    assert set(second) == {first[-1]}


def test_the_finished_image_fills_its_square() -> None:
    square = ServedSquare(PATCH)
    boxes = served(square, raster(20, 30, 40), 1)
    width = 29 * 40 + PATCH
    assert width <= boxes[-1].shape[0] < 1.12 * width
    smaller = served(square, raster(5, 5, 40), 2)
    assert smaller[0] == boxes[-1]  # it fits
    assert smaller[-1].shape[0] < 2 * (4 * 40 + PATCH)


def test_a_raster_has_room_where_it_goes() -> None:
    """The picture moves within its viewer as seldom as its size changes."""
    boxes = served(ServedSquare(PATCH), raster(20, 30, 40), 1)
    assert len([box for box, _ in itertools.groupby(boxes)]) <= 6


def test_a_canvas_that_is_too_long_for_a_square_is_served_as_it_is() -> None:
    square = ServedSquare(PATCH, max_pixels=1_000_000)
    assert square.fit(PixelBox(0, 0, 100, 900), 1, False).shape == (1000, 1000)
    long = PixelBox(0, 0, 100, 1100)
    assert square.fit(long, 1, False) == long


def test_an_empty_canvas_keeps_the_size() -> None:
    square = ServedSquare(PATCH)
    before = served(square, raster(20, 30, 40), 1)[-1]
    assert square.fit(PixelBox(0, 0, 0, 0), 2, False) == before


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(-3000, 3000), st.integers(-3000, 3000)), min_size=1, max_size=30), st.data())
def test_any_scan_after_any_other(places: list[tuple[int, int]], data: st.DataObject) -> None:
    square = ServedSquare(PATCH)
    for scan in (1, 2, 3):
        order = data.draw(st.permutations(places))
        assert len(sizes([square.box, *served(square, (patch(*place) for place in order), scan)])) <= 5
