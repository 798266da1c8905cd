"""Units as files spell them."""

from __future__ import annotations

import pytest

from ptychostream.errors import UnitError
from ptychostream.statements.units import Dimension, factor, is_unit


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("m", "length", 1.0),
        ("mm", "length", 1e-3),
        ("Mm", "length", 1e6),
        ("µm", "length", 1e-6),
        ("μm", "length", 1e-6),
        ("UM", "length", 1e-6),
        ("micrometres", "length", 1e-6),
        ("Micrometers", "length", 1e-6),
        ("microns", "length", 1e-6),
        ("b'nm'", "length", 1e-9),
        (" nanometer ", "length", 1e-9),
        ("Å", "length", 1e-10),
        ("\u212b", "length", 1e-10),
        ("angstrom", "length", 1e-10),
        ("[mm]", "length", 1e-3),
        ("keV", "energy", 1e3),
        ("kev", "energy", 1e3),
        ("kV", "energy", 1e3),
        ("J", "energy", 6.241509074e18),
        ("electron volts", "energy", 1.0),
        ("ms", "time", 1e-3),
        ("deg", "angle", 0.0174532925),
        ("1 / nm", "inverse length", 1e9),
        ("A^-1", "inverse length", 1e10),
    ],
)
def test_a_unit_in_any_spelling(text: str, dimension: Dimension, value: float) -> None:
    assert factor(text, dimension, "x") == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "dimension", "said"),
    [("furlong", "length", "furlong"), ("keV", "length", "a unit of energy"), ("mm", "energy", "a unit of length")],
)
def test_a_unit_that_is_unknown_or_of_another_dimension_is_refused(text: str, dimension: Dimension, said: str) -> None:
    with pytest.raises(UnitError, match=said) as caught:
        factor(text, dimension, "/entry/x")
    assert caught.value.where == "/entry/x"


def test_texts_that_say_no_unit() -> None:
    assert not any(map(is_unit, ("", " ", "undefined", "(null)", "None", "b''")))
    assert all(map(is_unit, ("m", "furlong")))
