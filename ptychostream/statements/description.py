"""All that a file, a stream or a contract says of its frames, each statement with the place where it was found.

Readers only add statements. What follows from them is decided here, so that every door has the same rule: two
statements about one quantity that do not agree are a contradiction, and a value that no real instrument has is
implausible. Neither is settled by choosing one of them. What the user gives takes the place of what the source states.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from ptychostream.errors import ContradictionError
from ptychostream.statements.quantities import QUANTITIES

Value = float | int | str | bool
Origin = Literal["stated", "given", "assumed"]


@dataclass(frozen=True)
class Statement:
    """One value of one quantity.

    Attributes
    ----------
    quantity
        A name in `QUANTITIES`.
    value
        In the quantity's SI unit.
    where
        Where it was found: a path in a file, an attribute of a stream, a key of a configuration, an option.
    written
        The value as it is written there, with its unit, if that differs.
    origin
        "stated" by the source, "given" by the user, or "assumed" because nobody says.
    """

    quantity: str
    value: Value
    where: str
    written: str = ""
    origin: Origin = "stated"

    def __post_init__(self) -> None:
        if self.quantity not in QUANTITIES:
            raise ValueError(f"{self.quantity!r} is no quantity")

    def __str__(self) -> str:
        unit = QUANTITIES[self.quantity].unit
        value = f"{self.value:.6g}" if isinstance(self.value, float) else str(self.value)
        return f"{self.where} says {self.written or f'{value} {unit}'.strip()}"


@dataclass(frozen=True)
class Contradiction:
    """Two statements that cannot both be true, or one that cannot be.

    Attributes
    ----------
    quantity
        What they are about.
    statements
        Both of them; only one if it contradicts the limits of any real instrument.
    remedy
        What the user can do.
    """

    quantity: str
    statements: tuple[Statement, ...]
    remedy: str

    def __str__(self) -> str:
        what = QUANTITIES[self.quantity]
        if len(self.statements) == 1:
            numbers = "the whole numbers from " if what.whole else ""
            limits = f"{numbers}{what.low:g} to {what.high:g} {what.unit}".strip()
            return f"{what.text}: {self.statements[0]}, which lies outside {limits}"
        return f"{what.text}: {', but '.join(map(str, self.statements))}"

    def error(self, where: str) -> ContradictionError:
        return ContradictionError(str(self), where=where, remedy=self.remedy)


class Description:
    """Statements about one source, in the order in which they were found.

    Parameters
    ----------
    source
        The file or PV.
    """

    def __init__(self, source: str = "", statements: Iterable[Statement] = ()) -> None:
        self.source = source
        self._statements = list(statements)

    def __iter__(self) -> Iterator[Statement]:
        return iter(self._statements)

    def __len__(self) -> int:
        return len(self._statements)

    def add(self, statement: Statement) -> None:
        """Add a statement as it is."""
        self._statements.append(statement)

    def state(self, quantity: str, value: Value | None, where: str, written: str = "") -> None:
        """Add what the source says. None: it says nothing."""
        self._add(quantity, value, where, written, "stated")

    def give(self, quantity: str, value: Value | None, where: str) -> None:
        """Add what the user gives; it replaces what the source states or assumes. None: nothing is given."""
        self._add(quantity, value, where, "", "given")

    def assume(self, quantity: str, value: Value, where: str) -> None:
        """Add a value that is used because neither source nor user give one; `where` says why this one."""
        self._add(quantity, value, where, "", "assumed")

    def about(self, quantity: str) -> list[Statement]:
        """The statements that count: the given ones, else the stated, else the assumed."""
        found = [statement for statement in self._statements if statement.quantity == quantity]
        for origin in ("given", "stated", "assumed"):
            if of_origin := [statement for statement in found if statement.origin == origin]:
                return of_origin
        return []

    def value(self, quantity: str) -> Value | None:
        """The value in force, or None if nothing is known. Raises ContradictionError."""
        found = self.about(quantity)
        for contradiction in _within(found):
            raise contradiction.error(self.source)
        return found[0].value if found else None

    def number(self, quantity: str) -> float | None:
        """The value in force as a float, or None. Raises ContradictionError."""
        value = self.value(quantity)
        return None if value is None else float(value)

    def contradictions(self) -> list[Contradiction]:
        """All of them, by quantity."""
        return [found for quantity in QUANTITIES for found in _within(self.about(quantity))]

    def check(self) -> None:
        """Raises ContradictionError for the first contradiction."""
        for contradiction in self.contradictions():
            raise contradiction.error(self.source)

    def against(
        self, other: Description, quantities: Iterable[str], *, tolerance: float = 0.0, remedy: str
    ) -> list[Contradiction]:
        """Where both say something of one of `quantities`, and not the same.

        Parameters
        ----------
        tolerance
            Relative difference that is allowed; the quantity's own if that is larger.
        remedy
            What the user can do.
        """
        found = []
        for quantity in quantities:
            mine, others = self.about(quantity)[:1], other.about(quantity)[:1]
            if mine and others and not _same(quantity, mine[0].value, others[0].value, tolerance):
                found.append(Contradiction(quantity, (mine[0], others[0]), remedy))
        return found

    def _add(self, quantity: str, value: Value | None, where: str, written: str, origin: Origin) -> None:
        if value is not None:
            self._statements.append(Statement(quantity, value, where, written, origin))


def _within(statements: list[Statement]) -> Iterator[Contradiction]:
    if not statements:
        return
    first = statements[0]
    for statement in statements:
        if not _plausible(statement):
            yield Contradiction(statement.quantity, (statement,), CORRECT)
    for statement in statements[1:]:
        if not _same(first.quantity, first.value, statement.value):
            yield Contradiction(first.quantity, (first, statement), _REMEDIES.get(first.quantity, CORRECT))


CORRECT = "correct the wrong one, or give the right value by the command's option"
"""The remedy for statements of one source."""
_REMEDIES = {"scan_id": "cut the file to the frames of one scan"}


def _plausible(statement: Statement) -> bool:
    quantity, value = QUANTITIES[statement.quantity], statement.value
    if isinstance(value, str):
        return True
    if not math.isfinite(value) or (quantity.whole and value != round(value)):
        return False
    return (quantity.low is None or value >= quantity.low) and (quantity.high is None or value <= quantity.high)


def _same(quantity: str, a: Value, b: Value, tolerance: float = 0.0) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    allowed = max(tolerance, QUANTITIES[quantity].tolerance)
    return abs(a - b) <= allowed * max(abs(a), abs(b))
