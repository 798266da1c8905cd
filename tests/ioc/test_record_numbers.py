"""What a record of whole numbers holds of a number that is too large for it."""

from __future__ import annotations

from ctypes import c_double, c_int16, c_int32, c_int64
from typing import Any

import pytest

from ptychostream.ioc.records.records import nearest


@pytest.mark.parametrize(
    ("kind", "value", "held"),
    [
        (c_int32, 4294967295, 2147483647),  # the largest count of a 32-bit detector; wrapped it would be -1
        (c_int32, -3_000_000_000, -2147483648),
        (c_int32, 2147483647, 2147483647),
        (c_int16, 40_000, 32767),
        (c_int64, 3_000_000_000, 3_000_000_000),
        (c_double, 1e300, 1e300),
    ],
)
def test_a_number_that_is_too_large_is_shown_as_the_largest(kind: type[Any], value: float, held: float) -> None:
    assert nearest(kind, value) == held
    assert kind(nearest(kind, value)).value == held
