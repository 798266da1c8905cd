"""Frames taken back from a canvas: as if they had never been laid down."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ptychostream.pva  # noqa: F401 - pvaccess first
from ptychostream.errors import GeometryError
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import ModelContract, PackedArray
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.recalling_mosaic import RecallingMosaic

SIDE, PIXEL_M = 6, 1e-8
FLAT = ModelContract(name="flat", input_shape=(SIDE, SIDE), output_shape=(SIDE, SIDE), object_pixel_m=PIXEL_M)
RIM = FLAT.model_copy(
    update={"name": "rim", "patch_weight": PackedArray.pack(np.pad(np.eye(SIDE - 3, dtype=np.float32), (1, 2)))}
)


def patches(numbers: list[int], run: int = 1) -> Patches:
    """A patch of each number, at a place of its own between the pixels."""
    rng = [np.random.default_rng(number) for number in numbers]
    placed = [
        PlacedFrame(Frame("s", number, 0.0, np.zeros((2, 2), np.uint16), run=run), *one.uniform(-3e-7, 3e-7, 2))
        for number, one in zip(numbers, rng, strict=True)
    ]
    phase = np.array([one.uniform(-3, 3, (SIDE, SIDE)) for one in rng], np.float32).reshape(-1, SIDE, SIDE)
    return Patches(placed, phase, [], 0.0, 0.0, 0.0, phase, 1.0)


def mosaic(run: int = 1) -> RecallingMosaic:
    made = RecallingMosaic(1_000_000)
    made.adopt(FLAT)
    made.begin(run, "s")
    return made


def canvas_of(made: RecallingMosaic, run: int = 1) -> Canvas:
    canvas = made.canvas(run)
    assert canvas is not None
    return canvas.canvas


@pytest.mark.slow
@given(st.lists(st.tuples(st.integers(0, 40), st.booleans()), unique_by=lambda pair: pair[0], min_size=1), st.data())
def test_a_canvas_is_as_if_what_was_taken_back_had_never_been(
    frames: list[tuple[int, bool]], data: st.DataObject
) -> None:
    """With a change of model, and so of patch weight, anywhere between."""
    change = data.draw(st.integers(0, len(frames)))
    made, wanted = mosaic(), mosaic()
    for index, (number, stays) in enumerate(frames):
        if index == change:
            made.adopt(RIM)
            wanted.adopt(RIM)
        made.add(patches([number]), 1)
        if stays:
            wanted.add(patches([number]), 1)
    gone = data.draw(st.permutations([number for number, stays in frames if not stays]))
    assert all(made.take_back(1, number) for number in gone)
    state, expected = canvas_of(made).state(), canvas_of(wanted).state()
    assert (state.row0, state.column0, state.patches) == (expected.row0, expected.column0, expected.patches)
    assert np.array_equal(state.value, expected.value) and np.array_equal(state.weight, expected.weight)
    kept = {number for number, stays in frames if stays}
    assert len(made.laid(1)) == len(kept) and all(number in made.laid(1) for number in kept)


def test_a_frame_is_taken_back_once_and_only_from_where_it_is() -> None:
    made = mosaic()
    made.add(patches([1, 2]), 1)
    assert not made.take_back(2, 1)
    assert not made.take_back(1, 3)
    assert made.take_back(1, 1)
    assert not made.take_back(1, 1)
    made.reset()
    assert not made.take_back(1, 2)
    assert len(made.laid(1)) == canvas_of(made).patches == 0


def test_a_finished_canvas_gives_its_frames_back_too_and_is_not_kept_alive() -> None:
    made = mosaic()
    made.add(patches([1, 2]), 1)
    made.begin(2, "t")
    made.add(patches([1], run=2), 2)
    assert made.take_back(1, 2)
    assert (canvas_of(made, 1).patches, canvas_of(made, 2).patches) == (1, 1)
    made.retain({2})
    gc.collect()
    assert not made.take_back(1, 1)
    assert len(made.laid(1)) == 0


def test_the_patches_kept_are_bounded() -> None:
    made = mosaic()
    made.keep_bytes = 3 * 4 * SIDE**2
    for number in range(5):
        made.add(patches([number]), 1)
    assert [made.take_back(1, number) for number in range(5)] == [False, False, True, True, True]
    assert canvas_of(made).patches == 2


def test_a_patch_that_the_canvas_refused_is_not_on_it() -> None:
    made = mosaic()
    batch = patches([1, 2])
    batch.phase[0] = np.nan
    made.add(batch, 1)
    assert not made.take_back(1, 1)
    assert made.take_back(1, 2)


def test_what_was_never_added_is_not_taken_out() -> None:
    canvas, other = (Canvas(PIXEL_M, np.ones((SIDE, SIDE))) for _ in range(2))
    canvas.add(np.ones((SIDE, SIDE), np.float32), 0, 0)
    other.add(np.ones((SIDE, SIDE), np.float32), PIXEL_M, 0)
    with pytest.raises(GeometryError, match="never added"):
        canvas.subtract_state(other.state())
    assert canvas.patches == 1
