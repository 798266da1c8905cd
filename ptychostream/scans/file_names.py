"""The names of a recording's files."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from ptychostream.errors import ConfigError

PARTIAL = ".partial"
"""Suffix of a file that is still being recorded."""


class FileNames:
    """Makes the paths of a recording from a template.

    Parameters
    ----------
    template
        A path. `{scan}` stands for the scan's id, `{number}` for 1, 2… Without them it is the file of a single scan.

    Raises
    ------
    ConfigError
        The template has other braces.
    """

    def __init__(self, template: str) -> None:
        self._template = template
        try:
            self.several = template.format(scan="a", number=1) != template.format(scan="b", number=2)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"{template!r} is not a file name: {error}",
                where="FILE",
                remedy="use only {scan} and {number} in braces",
            ) from error

    def path(self, scan: str, number: int) -> Path:
        """The path of a scan. If the template is for several scans and the file exists, `-2`, `-3`… is added."""
        paths = self._paths(scan, number)
        if not self.several:
            return next(paths)
        return next(path for path in paths if not (path.exists() or partial_of(path).exists()))

    def latest(self, scan: str) -> Path:
        """The path of the latest recording of `scan`, finished or not. Without a recording it is the first path."""
        there = [*itertools.takewhile(lambda path: path.exists() or partial_of(path).exists(), self._paths(scan, 1))]
        return there[-1] if there else next(self._paths(scan, 1))

    def _paths(self, scan: str, number: int) -> Iterator[Path]:
        safe = re.sub(r"[^\w.+-]", "_", scan).strip(".") or "unnamed"
        first = Path(self._template.format(scan=safe, number=number))
        yield first
        for copy in itertools.count(2):
            yield first.with_name(f"{first.stem}-{copy}{first.suffix}")


def partial_of(path: Path) -> Path:
    """The path of the file while it is being recorded."""
    return path.with_name(path.name + PARTIAL)
