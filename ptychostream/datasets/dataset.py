"""What a published scan is: its name, where its files come from, and how they become a scan file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

FORMAT = 1
"""Increased when a conversion changes. Older files in the cache are made again."""


class Origin(Protocol):
    """Where a dataset's files come from. The checksum is that of the files, however they are packed."""

    @property
    def checksum(self) -> str:
        """SHA-256 of what is wanted, hexadecimal."""
        ...

    @property
    def archive(self) -> str:
        """What is fetched, in words, with its size."""
        ...

    def download(self, folder: Path) -> Path:
        """Fetch the archive into a folder. Raises DatasetError."""
        ...

    def unpack(self, archive: Path, folder: Path) -> Path:
        """The wanted file or folder, checked; what has to be unpacked goes to `folder`. Raises DatasetError."""
        ...


@dataclass(frozen=True)
class Dataset:
    """A published scan.

    Attributes
    ----------
    name, title, licence, source
        To be read by people.
    origin
        Where its files come from.
    make
        Writes the scan file: of the unpacked file or folder, to a path, with the dataset's `metadata`.
    """

    name: str
    title: str
    licence: str
    source: str
    origin: Origin
    make: Callable[[Path, Path, dict[str, Any]], None]

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the converted file: the scan's origin."""
        return {
            "dataset": self.name,
            "dataset_format": FORMAT,
            "title": self.title,
            "licence": self.licence,
            "source": self.source,
            "member_sha256": self.origin.checksum,
        }
