"""Errors that cross a process keep what a user needs to act upon them."""

from __future__ import annotations

import multiprocessing

import pytest

from ptychostream import errors
from ptychostream.errors import DropCause, FrameError, PtychostreamError
from ptychostream.hpc_agent.scans.scan_checks import CollectError, ScanFault


def subclasses(kind: type[PtychostreamError]) -> list[type[PtychostreamError]]:
    return [kind, *(inner for sub in kind.__subclasses__() for inner in subclasses(sub))]


KINDS = [kind for kind in subclasses(PtychostreamError) if kind.__module__ == errors.__name__]


def make(kind: type[PtychostreamError]) -> PtychostreamError:
    if issubclass(kind, FrameError):
        return kind(DropCause.SHAPE, "is 3×5", where="frame 7", remedy="crop it to 4×4")
    return kind("is 3×5", where="frame 7", remedy="crop it to 4×4")


def raise_it(name: str) -> None:
    if name == CollectError.__name__:
        raise CollectError(ScanFault.DARK, "is 3×5", where="frame 7", remedy="crop it to 4×4")
    raise make(getattr(errors, name))


@pytest.mark.slow
def test_every_error_that_a_child_process_raises_keeps_all_it_says() -> None:
    assert {FrameError, errors.FileCutError, errors.AgentError} <= set(KINDS)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for kind in KINDS:
            with pytest.raises(kind) as caught:
                pool.apply_async(raise_it, (kind.__name__,)).get(60)
            error = caught.value
            assert type(error) is kind
            assert (error.what, error.where, error.remedy) == ("is 3×5", "frame 7", "crop it to 4×4")
            assert str(error) == "frame 7: is 3×5 (crop it to 4×4)"
            assert not isinstance(error, FrameError) or error.cause is DropCause.SHAPE
        with pytest.raises(CollectError) as collected:
            pool.apply_async(raise_it, (CollectError.__name__,)).get(60)
    assert (collected.value.fault, collected.value.remedy) == (ScanFault.DARK, "crop it to 4×4")
