"""Statements, what counts among them, and contradictions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.errors import ContradictionError
from ptychostream.statements.description import Description


def test_two_statements_that_do_not_agree_are_named_with_their_places() -> None:
    said = Description("scan.h5")
    said.state("energy", 10_000.0, "/entry/beam/energy", "10 keV")
    said.state("energy", 12_400.0, "/entry/source/energy")
    with pytest.raises(
        ContradictionError, match=r"/entry/beam/energy says 10 keV, but /entry/source/energy says 12400 eV"
    ):
        said.value("energy")
    assert len(said.contradictions()) == 1


def test_what_the_user_gives_replaces_what_is_stated() -> None:
    said = Description()
    said.state("energy", 10_000.0, "a")
    said.assume("distance", 1.0, "usual")
    said.give("energy", 12_400.0, "--energy-ev")
    assert (said.value("energy"), said.value("distance"), said.value("binning_x")) == (12_400.0, 1.0, None)
    assert not said.contradictions()


def test_an_impossible_value_is_no_statement_to_believe() -> None:
    said = Description()
    said.state("energy", 10.0e-3, "/entry/energy")
    with pytest.raises(ContradictionError, match="outside 10 to 1e"):
        said.check()


def test_two_descriptions_are_compared_where_both_speak() -> None:
    scan, model = Description("scan.h5"), Description("m.onnx")
    scan.state("energy", 12_400.0, "scan")
    model.state("energy", 10_000.0, "model")
    model.state("distance", 1.0, "model")
    (found,) = scan.against(model, ("energy", "distance"), remedy="train for it")
    assert str(found) == "energy; for electrons the accelerating voltage: scan says 12400 eV, but model says 10000 eV"
    assert not scan.against(model, ("energy",), tolerance=0.3, remedy="")


def test_an_unknown_quantity_is_a_fault_of_the_program() -> None:
    with pytest.raises(ValueError, match="no quantity"):
        Description().state("enrgy", 1.0, "x")


@pytest.mark.slow
@given(st.floats(11, 9e5), st.floats(11, 9e5))
def test_equal_statements_agree_and_others_contradict(first: float, second: float) -> None:
    said = Description()
    said.state("energy", first, "a")
    said.state("energy", second, "b")
    differ = abs(first - second) > 1e-3 * max(first, second)
    assert bool(said.contradictions()) is differ
