"""Errors that say what was wrong, where, and what to do about it."""

from __future__ import annotations


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
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


def _rebuild(kind: type[PtychostreamError], what: str, where: str, remedy: str) -> PtychostreamError:
    return kind(what, where=where, remedy=remedy)


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


class NoPositionsError(ScanFileError):
    """The file does not say where the frames were taken."""


class MorePositionsError(ScanFileError):
    """There are more positions than frames."""


class FewerPositionsError(ScanFileError):
    """There are fewer positions than frames."""


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


class FrameError(PtychostreamError):
    """One frame is bad. Carries the cause it is counted under.

    Parameters
    ----------
    cause
        A `ptychostream.frames.frames.DropCause`.
    """

    def __init__(self, cause: object, what: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.cause = cause

    def __reduce__(self) -> tuple[object, ...]:
        return (FrameError, (self.cause, self.what))


class ReconstructionError(PtychostreamError):
    """A reconstruction cannot be run or diverged."""


class DivergedError(ReconstructionError):
    """The iterations of a reconstruction went astray."""


class TrainingError(PtychostreamError):
    """A network cannot be trained on what was given."""


class AgentError(PtychostreamError):
    """The agent cannot work: its journal, its lease, its edge or its cluster."""
