"""Figures that a pipeline tells of itself, each declared once, as a field of a dataclass.

    received: Annotated[int, Figure("FramesReceived_RBV", "Frames that reached the plugin")] = 0

From the declaration follow the record, the field on the wire between consumer and collector, and the collector's value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, dataclass
from functools import cache
from typing import Any, get_args, get_type_hints

from ptychostream.config import Shown


@dataclass(frozen=True, eq=False)
class Figure(Shown):
    """What a field declares besides its type.

    Attributes
    ----------
    over_consumers
        Makes the collector's value from those of the consumers that work; None: the collector has a rule of its own.
    wire
        Name in a consumer's report; the field's name in camel case by default.
    """

    _: KW_ONLY
    over_consumers: Callable[[Iterable[Any]], Any] | None = None
    wire: str = ""


def figures(kind: type) -> Mapping[str, tuple[Any, Figure]]:
    """Type and declaration of the figures among a dataclass's fields, by the field's name."""
    hashable: Any = kind  # mypy takes a class for unhashable where its instances are
    return _figures(hashable)


@cache
def _figures(kind: type) -> Mapping[str, tuple[Any, Figure]]:
    return {
        name: (get_args(hint)[0], figure)
        for name, hint in get_type_hints(kind, include_extras=True).items()
        for figure in getattr(hint, "__metadata__", ())
        if isinstance(figure, Figure)
    }


def counted(values: Iterable[int]) -> int:
    """The sum, for a count since the start: dead consumers' counts are in it, and it can be set to zero."""
    return sum(values)


def slowest(values: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
    """The largest of each percentile; NaN where none is known. Percentiles of several consumers cannot be added up."""
    return tuple(map(largest, zip(*values, strict=True))) or (math.nan,) * 3


def largest(values: Iterable[float]) -> float:
    """The largest of the consumers' values that are known; NaN where none is."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def most(values: Iterable[int]) -> int:
    """The largest of the consumers' counts; 0 where there is none."""
    return max(values, default=0)
