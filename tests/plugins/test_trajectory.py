"""The places of a scan's frames are kept in order, and never more than a number."""

from __future__ import annotations

import numpy as np

from ptychostream.plugins.trajectory import Trajectory


def test_few_places_are_kept_as_they_are() -> None:
    trajectory = Trajectory()
    assert trajectory.places_um().shape == (2, 0)
    trajectory.add([(1e-6, 2e-6)])
    trajectory.add([(3e-6, 4e-6), (5e-6, 6e-6)])
    np.testing.assert_allclose(trajectory.places_um(), [[1, 3, 5], [2, 4, 6]])


def test_many_places_are_thinned_out_evenly() -> None:
    trajectory = Trajectory(most=10)
    for begin in range(0, 100, 7):
        trajectory.add((1e-6 * n, -1e-6 * n) for n in range(begin, min(begin + 7, 100)))
    x, y = np.rint(trajectory.places_um())
    assert trajectory.seen == 100
    assert 5 <= len(x) <= 10
    assert np.array_equal(x, -y)
    assert set(np.diff(x)) == {16}
    assert x[0] == 0
