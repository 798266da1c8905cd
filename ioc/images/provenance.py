"""What a saved canvas says about where it comes from: a pure function, plain values by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ptychostream import __version__
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import Maker, RunFigures, Stitched

_PACKAGES = ("numpy", "h5py", "p4p", "softioc", "onnxruntime", "openvino", "torch", "tensorrt")


def provenance(
    stitched: Stitched,
    figures: RunFigures,
    *,
    positions: Mapping[str, Any],
    boundary: BoundarySettings,
    sha_of: Callable[[str], str],
    now: float,
    monotonic: float,
) -> dict[str, Any]:
    """Everything that is known about a canvas; times are ISO 8601, UTC.

    Parameters
    ----------
    stitched, figures
        The canvas, and the accounting of its run's frames.
    positions
        Where positions came from.
    boundary
        What told its scan from the next.
    sha_of
        sha256 of a model by its contract's name.
    now, monotonic
        Both clocks at one moment: the run's beginning and end are told by the second.
    """

    def when(on_monotonic: float | None) -> str:
        return "" if on_monotonic is None else _iso(now - (monotonic - on_monotonic))

    return {
        "scan": stitched.scan,
        "run": stitched.run,
        "frames": {
            "received": figures.received,
            "stitched": figures.stitched,
            "pending": figures.pending,
            "dropped": {cause.value: count for cause, count in figures.dropped.items()},
            "missed": figures.missed,
            "on_canvas": stitched.frames,
        },
        "times": {
            "began": when(figures.began),
            "ended": when(figures.ended),
            "first_frame": _iso(figures.first_time),
            "last_frame": _iso(figures.last_time),
            "saved": _iso(now),
        },
        "models": [_model(maker, sha_of) for maker in stitched.makers],
        "dose_scale": stitched.dose_scale,
        "pixel_m": stitched.image.pixel_m,
        "positions": dict(positions),
        "boundary": boundary.model_dump(mode="json", include={"boundary", "gap_s", "late", "late_s"}),
        "versions": {"ptychostream": __version__, **_versions()},
    }


def _model(maker: Maker, sha_of: Callable[[str], str]) -> dict[str, Any]:
    """The contract is whole but for its arrays, which the model file has."""
    arrays: dict[str, Any] = {"golden": True, "patch_weight": True, "probe": True, "preprocessing": {"bad_pixels"}}
    return {
        "name": maker.contract.name,
        "sha256": sha_of(maker.contract.name),
        "engine": maker.engine,
        "dose_scale": list(maker.dose_scales),
        "frames": maker.frames,
        "contract": maker.contract.model_dump(mode="json", exclude_none=True, exclude=arrays),
    }


@cache
def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _iso(time: float | None) -> str:
    return "" if time is None else datetime.fromtimestamp(time, timezone.utc).isoformat(timespec="milliseconds")
