"""Statements and contradictions as values of JSON."""

from __future__ import annotations

import math
from typing import Any

from ptychostream.errors import PtychostreamError
from ptychostream.statements.description import Contradiction, Statement
from ptychostream.statements.quantities import QUANTITIES


def statement_json(statement: Statement) -> dict[str, Any]:
    """All that a statement has, and the unit. A value that is no number is null."""
    value = statement.value
    finite = not isinstance(value, float) or math.isfinite(value)
    return {
        "quantity": statement.quantity,
        "value": value if finite else None,
        "unit": QUANTITIES[statement.quantity].unit,
        "origin": statement.origin,
        "where": statement.where,
        "written": statement.written,
    }


def contradiction_json(found: Contradiction) -> dict[str, Any]:
    """The quantity, the sentence, the statements and the remedy."""
    return {
        "quantity": found.quantity,
        "text": str(found),
        "statements": [statement_json(statement) for statement in found.statements],
        "remedy": found.remedy,
    }


def error_json(error: PtychostreamError | None) -> dict[str, Any] | None:
    """What, where and remedy; null for no error."""
    return None if error is None else {"what": error.what, "where": error.where, "remedy": error.remedy}
