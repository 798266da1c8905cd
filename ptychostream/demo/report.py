"""The report of a demonstration: JSON for scripts, one HTML page for people."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ptychostream import __version__
from ptychostream.atomic import write_bytes_atomic

PACKAGES = ("numpy", "torch", "onnxruntime", "openvino", "pvapy", "softioc", "p4p", "h5py", "scikit-image")


@dataclass
class Report:
    """What one demonstration showed. Rates in Hz, latencies in ms, `seconds` by step and in total."""

    dataset: str
    r_factor: float
    pearson_heldout: float
    ssim_heldout: float
    ssim_heldout_1px: float
    frames: dict[str, object]
    rate_hz: float
    latency_ms: dict[str, float]
    engine: str
    model_version: str
    heldout_frames: int
    training_frames: int
    simulated_ratio: float
    seconds: float = 0.0
    steps_s: dict[str, float] = field(default_factory=dict)
    machine: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Versions of ptychostream, Python and the libraries that matter to the figures."""
    found = {"ptychostream": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_json(report: Report, path: Path) -> None:
    """Write `report.json`, atomically."""
    write_bytes_atomic(path, (json.dumps(asdict(report), indent=2) + "\n").encode())


def write_html(report: Report, figure: Path, path: Path) -> None:
    """Write `report.html`, one self-contained page with the figure in it, atomically."""
    write_bytes_atomic(path, _page(report, figure.read_bytes()).encode())


def _page(report: Report, picture: bytes) -> str:
    latency = report.latency_ms
    headline = [
        ("Frames stitched of received", f"{report.frames['stitched']} of {report.frames['received']}"),
        ("SSIM, unseen area", f"{report.ssim_heldout:.3f} ({report.ssim_heldout_1px:.3f} at one pixel's resolution)"),
        ("Pearson r, unseen area", f"{report.pearson_heldout:.3f}"),
        ("ePIE R factor", f"{report.r_factor:.4f}"),
        ("Rate", f"{report.rate_hz:.0f} frames/s"),
        ("Latency p50 / p95 / p99", f"{latency['p50']:.1f} / {latency['p95']:.1f} / {latency['p99']:.1f} ms"),
        ("Engine", report.engine),
        ("Trained on", f"{report.training_frames} patterns, and {report.simulated_ratio:g} simulated for each"),
        ("Never seen in training", f"{report.heldout_frames} patterns"),
        ("Dropped", ", ".join(f"{k} {v}" for k, v in _dropped(report).items() if v) or "none"),
        ("Total time", f"{report.seconds:.0f} s"),
    ]
    steps = [(name, f"{seconds:.1f} s") for name, seconds in report.steps_s.items()]
    image = base64.b64encode(picture).decode()
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ptychostream: {html.escape(report.dataset)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }}
img {{ max-width: 100%; }} table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .25rem 1.5rem .25rem 0; border-bottom: 1px solid #ddd; }}
th {{ font-weight: 600; }}
</style></head><body>
<h1>Live phase of {html.escape(report.dataset)}</h1>
<p>The stitched image is the one a PV Access client received while the scan was streaming. The network saw no pixel
of the outlined area during training.</p>
<img alt="ePIE beside the live stitched phase" src="data:image/png;base64,{image}">
<h2>Figures</h2>{_table(headline)}
<h2>Time</h2>{_table(steps)}
<h2>Versions</h2>{_table(list(report.versions.items()))}
</body></html>
"""


def _dropped(report: Report) -> dict[str, int]:
    dropped = report.frames["dropped"]
    assert isinstance(dropped, dict)
    return dropped


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"
