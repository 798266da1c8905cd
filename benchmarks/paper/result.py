"""What a result says: its figures beside the paper's, and whether it passes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One figure of a result.

    Attributes
    ----------
    what
        What was measured.
    paper
        What the paper says of it.
    ours, refined
        By the network alone, and by its phase refined. None: it was not reached, or is not measured.
    least
        The line: `ours` passes from here on. None: there is none at this scale.
    unit
        Of the figures, printed behind them.
    """

    what: str
    paper: str
    ours: float | None
    refined: float | None = None
    least: float | None = None
    unit: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether it passes; None: there is no line."""
        if self.least is None:
            return None
        return self.ours is not None and math.isfinite(self.ours) and self.ours >= self.least

    def text(self, value: float | None) -> str:
        """A figure for people."""
        return "–" if value is None else f"{value:.3g}{self.unit}" if abs(value) < 100 else f"{value:.0f}{self.unit}"

    @property
    def mark(self) -> str:
        """The pass mark, in words."""
        if self.passed is None:
            return "no line"
        return f"{'pass' if self.passed else 'SHORT'} (line {self.least:g}{self.unit})"


@dataclass(frozen=True)
class Result:
    """A reproduced result: its rows, and the values that its plot is drawn from, as plain values."""

    name: str
    title: str
    rows: tuple[Row, ...]
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every row with a line passes."""
        return all(row.passed is not False for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        rows = [{**asdict(row), "passed": row.passed} for row in self.rows]
        return {"result": self.name, "title": self.title, "passed": self.passed, "rows": rows, **self.data}

    def lines(self) -> list[str]:
        """A line for each row."""
        return [
            f"{self.name}: {row.what}: {row.text(row.ours)}"
            + (f", refined {row.text(row.refined)}" if row.refined is not None else "")
            + f"; paper: {row.paper}; {row.mark}"
            for row in self.rows
        ]
