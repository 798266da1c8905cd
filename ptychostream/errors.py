"""Errors that say what was wrong, where, and what to do about it."""

from __future__ import annotations

from enum import Enum


class PtychostreamError(Exception):
    """Base of every error the user can act upon.

    Parameters
    ----------
    what
        What was wrong, with the offending value.
    where
        The file, PV, configuration key or frame it was found in.
    remedy
        What the user can do.
    """

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text} ({remedy})" if remedy else text)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle every attribute, also those of a subclass whose `__init__` takes other arguments."""
        return _restore, (type(self), self.args), self.__dict__


def _restore(kind: type[PtychostreamError], args: tuple[object, ...]) -> PtychostreamError:
    return kind.__new__(kind, *args)  # __init__ would format the message a second time; the attributes follow


class ConfigError(PtychostreamError):
    """A configuration file or command-line value is wrong."""


class ScanFileError(PtychostreamError):
    """A scan or reconstruction file cannot be read or written."""


class FileMissingError(ScanFileError):
    """There is no such file."""


class FileBusyError(ScanFileError):
    """The file is still open for writing, or its writer died with it open."""


class FileCutError(ScanFileError):
    """The file ends before it should."""


class DiskFullError(ScanFileError):
    """A file cannot be written because the disk, or the user's share of it, is full."""


class NoPositionsError(ScanFileError):
    """The file does not say where the frames were taken."""


class MorePositionsError(ScanFileError):
    """There are more positions than frames."""


class FewerPositionsError(ScanFileError):
    """There are fewer positions than frames."""


class ContradictionError(ScanFileError):
    """Two statements about one quantity do not agree, or one is impossible."""


class UnitError(ScanFileError):
    """A unit is unknown, or of another dimension than the quantity."""


class DatasetError(PtychostreamError):
    """A data set cannot be fetched or is not what it should be."""


class GeometryError(PtychostreamError):
    """Geometry, positions or canvas limits do not make sense."""


class ModelError(PtychostreamError):
    """A model file or its contract is refused."""


class EngineError(PtychostreamError):
    """An inference engine is absent, cannot be built, or failed."""


class StreamError(PtychostreamError):
    """A stream cannot be served or subscribed to."""


class DropCause(Enum):
    """Why a received frame was not stitched; each is one record `Dropped<value>_RBV`."""

    CODEC = "Codec"
    TYPE = "Type"
    SHAPE = "Shape"
    DUPLICATE = "Duplicate"
    NO_POSITION = "NoPosition"
    LATE = "Late"
    QUEUE_FULL = "QueueFull"
    NO_MODEL = "NoModel"
    ENGINE = "Engine"
    DECIMATED = "Decimated"
    NOT_MEASURED = "NotMeasured"
    CONTRADICTION = "Contradiction"
    UNSELECTED = "Unselected"


class FrameError(PtychostreamError):
    """One frame cannot be used.

    Parameters
    ----------
    cause
        The drop counter that counts this frame.
    raw_id
        The frame's id as it was sent, if it could be read.
    """

    def __init__(
        self, cause: DropCause, what: str, *, where: str = "", remedy: str = "", raw_id: int | None = None
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.cause = cause
        self.raw_id = raw_id


class ReconstructionError(PtychostreamError):
    """A reconstruction cannot be run or diverged."""


class DivergedError(ReconstructionError):
    """The iterations of a reconstruction went astray."""


class TrainingError(PtychostreamError):
    """A network cannot be trained on what was given."""


class AgentError(PtychostreamError):
    """The agent cannot work: its journal, its lease, its edge or its cluster."""
