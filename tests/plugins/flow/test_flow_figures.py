"""What is made of a figure over several consumers."""

from __future__ import annotations

from typing import Any

import pytest

from ptychostream.plugins.flow.figures import Figure, figures
from ptychostream.plugins.flow.snapshot import Figures, Snapshot

COUNTS = {
    name: figure for name, (kind, figure) in {**figures(Figures), **figures(Snapshot)}.items()
    if kind is int and figure.over_consumers is not None
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_a_count_over_no_consumer_is_a_count(name: str) -> None:
    figure: Figure = COUNTS[name]
    assert figure.over_consumers is not None
    made: Any = figure.over_consumers(())
    assert isinstance(made, int)
    assert isinstance(figure.over_consumers((3, 5)), int)
