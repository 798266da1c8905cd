"""The provenance of a saved canvas, as plain values by name. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ptychostream import __version__
from ptychostream.imaging.sigma import sigma_kind
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
    """The provenance of a canvas. Times are ISO 8601 in UTC.

    Parameters
    ----------
    stitched, figures
        The canvas, and the accounting of its run's frames.
    positions
        The source of the positions.
    boundary
        The settings that separate one scan from the next.
    sha_of
        Gives the sha256 of a model by its contract's name.
    now, monotonic
        The times of both clocks at one moment. The beginning and end of the run are times of the monotonic clock.
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
        "sigma": _sigma(stitched),
        "pixel_m": stitched.image.pixel_m,
        "positions": dict(positions),
        "boundary": boundary.model_dump(mode="json", include={"boundary", "gap_s", "late", "late_s"}),
        "versions": {"ptychostream": __version__, **_versions()},
    }


def _sigma(stitched: Stitched) -> dict[str, Any] | None:
    """What the error of the phase is, and its calibration; None where it is not known."""
    if stitched.image.spread is None:
        return None
    about: dict[str, Any] = {"kind": sigma_kind(stitched.calibration)}
    if stitched.calibration is not None:
        about["factor"], about["floor_rad"] = stitched.calibration
    return about


def _model(maker: Maker, sha_of: Callable[[str], str]) -> dict[str, Any]:
    """A model. The arrays of its contract are left out, because the model file has them."""
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
