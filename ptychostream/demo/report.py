"""The report of a demonstration: JSON for scripts, an HTML page for people."""

from __future__ import annotations

import base64
import html
import importlib.metadata
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ptychostream import __version__
from ptychostream.storage.atomic import write_bytes_atomic

FIGURE, TIME_LINE, IMAGES = "figure.png", "loop.png", "loop_images.png"
PACKAGES = ("numpy", "torch", "onnxruntime", "openvino", "pvapy", "softioc", "p4p", "h5py", "scikit-image")


@dataclass
class Report:
    """The figures of one demonstration. Rates are in Hz, latencies in ms, and `seconds` by step and in total.

    The first figures are those of the real scan. If only the loop ran, they are those of its last judged scan, which
    the live model had not been trained on, or None if no scan was judged. `loop` is `LoopRecord.to_json`.
    """

    dataset: str
    frames: dict[str, object]
    rate_hz: float
    latency_ms: dict[str, float]
    engine: str
    model_version: str
    training_frames: int
    simulated_ratio: float
    r_factor: float | None = None
    pearson_heldout: float | None = None
    ssim_heldout: float | None = None
    ssim_heldout_1px: float | None = None
    ssim_refined: float | None = None
    heldout_frames: int = 0
    seconds: float = 0.0
    steps_s: dict[str, float] = field(default_factory=dict)
    machine: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Versions of ptychostream, Python and the libraries that affect the figures."""
    found = {"ptychostream": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def as_json(report: Report) -> str:
    """The report as JSON; what is not known is null."""
    return json.dumps(_known(asdict(report)), indent=2, allow_nan=False)


def write_json(report: Report, path: Path) -> None:
    """Write `report.json`, atomically."""
    write_bytes_atomic(path, (as_json(report) + "\n").encode())


def _known(value: Any) -> Any:
    """The same with null in the place of numbers that are not known, for which JSON has no word."""
    if isinstance(value, dict):
        return {key: _known(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None, form: str) -> str:
    """A figure, or that it is not known: never 0 or nan in its place."""
    return "not known" if value is None or not math.isfinite(value) else format(value, form)


def write_html(report: Report, path: Path) -> None:
    """Write `report.html` atomically: one self-contained page that includes the figures."""
    write_bytes_atomic(path, _page(report, path.parent).encode())


def _page(report: Report, folder: Path) -> str:
    steps = [(name, f"{seconds:.1f} s") for name, seconds in report.steps_s.items()]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>ptychostream: {html.escape(report.dataset)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }}
img {{ max-width: 100%; }} table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ text-align: left; padding: .25rem 1.5rem .25rem 0; border-bottom: 1px solid #ddd; }}
th {{ font-weight: 600; }}
</style></head><body>
{_live(report, folder / FIGURE) if report.ssim_heldout is not None else ""}
{_loop(report.loop, folder) if report.loop else ""}
<h2>Time</h2>{_table(steps)}
<h2>Versions</h2>{_table(list(report.versions.items()))}
</body></html>
"""


def _live(report: Report, figure: Path) -> str:
    """The section about the live image and its quality."""
    latency = report.latency_ms
    one_px = _number(report.ssim_heldout_1px, ".3f")
    ssim = f"{_number(report.ssim_heldout, '.3f')} ({one_px} at one pixel's resolution)"
    p50, p95, p99 = (_number(latency.get(name), ".1f") for name in ("p50", "p95", "p99"))
    rows = [
        ("Frames stitched of received", f"{report.frames['stitched']} of {report.frames['received']}"),
        ("SSIM, unseen area", ssim),
        ("SSIM after refinement, unseen area", "" if report.ssim_refined is None else f"{report.ssim_refined:.3f}"),
        ("Pearson r, unseen area", _number(report.pearson_heldout, ".3f")),
        ("ePIE R factor", _number(report.r_factor, ".4f")),
        ("Rate", f"{_number(report.rate_hz, '.0f')} frames/s"),
        ("Latency p50 / p95 / p99", f"{p50} / {p95} / {p99} ms"),
        ("Engine", report.engine),
        ("Trained on", f"{report.training_frames} patterns, and {report.simulated_ratio:g} simulated for each"),
        ("Never seen in training", f"{report.heldout_frames} patterns"),
        ("Dropped", ", ".join(f"{k} {v}" for k, v in _dropped(report).items() if v) or "none"),
        ("Total time", f"{report.seconds:.0f} s"),
    ]
    return f"""<h1>Live phase of {html.escape(report.dataset)}</h1>
<p>A PV Access client received the stitched image while the scan was streaming. The network was not trained on any pixel
of the compared area: the outlined area, or the whole image if no area is outlined.</p>
{_image(figure, "ePIE beside the live stitched and the live refined phase, and their SSIM over time")}
<h2>Figures</h2>{_table(rows)}"""


def _loop(loop: dict[str, Any], folder: Path) -> str:
    """The section about the learning loop: its time line, and the figures of each scan."""
    judged = {entry["scan"]: entry for entry in loop["ssim"]}
    trained = {entry["scan"]: entry for entry in loop["models"] if entry["seconds"] is not None}
    rows = [("Scan", "live model", "frames stitched", "lost", "SSIM at 1 px (as it is)", "then", "live after")]
    for scan in loop["scans"]:
        of, new = judged.get(scan["scan"]), trained.get(scan["scan"])
        rows.append(
            (
                scan["scan"],
                scan["version"] or "none",
                f"{scan['stitched']} of {scan['sent']}",
                str(scan["lost"]),
                f"{_number(of['value'], '.3f')} ({_number(of['ssim'], '.3f')})" if of else "",
                f"retrained: {new['version']}" if new else "kept" if of else "passed over",
                f"{new['seconds']:.0f} s" if new else "",
            )
        )
    states = [(change["state"], change["reason"]) for change in loop["policy"]]
    return f"""<h1>The learning loop</h1>
<p>A simulated beamline, the edge and the agent as separate processes. Every figure is from their records and the
agent's journal. Each scan is at another place of the sample. The model of the second column stitched its live image,
and had not been trained on it.</p>
{_image(folder / TIME_LINE, "SSIM, losses, model versions, corpus and policy over time")}
{_image(folder / IMAGES, "the live image of each scan above its reconstruction")}
<h2>Scan by scan</h2>{_grid(rows)}
<h2>Policy</h2>{_table(states)}"""


def _image(path: Path, text: str) -> str:
    if not path.exists():
        return ""
    return f'<img alt="{text}" src="data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}">'


def _dropped(report: Report) -> dict[str, int]:
    dropped = report.frames["dropped"]
    assert isinstance(dropped, dict)
    return dropped


def _table(rows: list[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows)
    return f"<table>{cells}</table>"


def _grid(rows: Sequence[tuple[str, ...]]) -> str:
    """A table. Its first row is the header."""
    lines = [
        "<tr>" + "".join(f"<{kind}>{html.escape(text)}</{kind}>" for text in row) + "</tr>"
        for row, kind in zip(rows, ["th", *["td"] * len(rows)], strict=False)
    ]
    return f"<table>{''.join(lines)}</table>"
