"""Functions that several steps use: opening the scan, reading options, writing progress."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import ValidationError

from ptychostream.config import Settings, explain
from ptychostream.errors import ConfigError
from ptychostream.hpc_agent.corpus.training_data import Source
from ptychostream.positions.positions import AxisConfig
from ptychostream.refine.status import ENGINE
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.storage.atomic import cannot_be_written, write_bytes_atomic

S = TypeVar("S", bound=Settings)


def silent(_: dict[str, Any]) -> None:
    """A progress callback that does nothing."""


@contextmanager
def opened(scan: str, scan_options: Mapping[str, Any]) -> Iterator[Scan]:
    """Open the scan file of a step's arguments, with its options as JSON values.

    Raises
    ------
    ScanFileError
        As `open_scan`.
    """
    options = dict(scan_options)
    if options.get("route") is not None:
        options["route"] = Path(options["route"])
    if options.get("axes") is not None:
        options["axes"] = AxisConfig(**options["axes"])
    with open_scan(scan, ScanOptions(**options)) as opened_scan:
        yield opened_scan


def read_options(kind: type[S], values: Mapping[str, Any], step: str) -> S:
    """The options of a step.

    Raises
    ------
    ConfigError
        An option is wrong; the error names it.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        remedy = f"correct that option; known are {', '.join(sorted(kind.model_fields))}"
        raise ConfigError(explain(error), where=f"options of the step {step}", remedy=remedy) from error


def source_of(scan: Scan, made: Reconstruction) -> Source:
    """A scan and its reconstruction, to make pairs of. Of a refined result only the frames that were refined.

    Others may lie where its picture shows nothing.
    """
    frames = made.frames if made.engine == ENGINE else None
    return Source(scan, made, None if frames is None else frames.astype(np.intp))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` atomically. Raises ScanFileError."""
    try:
        write_bytes_atomic(path, json.dumps(dict(content), indent=1).encode())
    except OSError as error:
        raise cannot_be_written(path, error) from error
