"""The IOC killed while it stitches and saves: canvases that it named are whole, setpoints that it saved come back."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from ptychostream.benchmarks.kills.place import CHANNEL, PREFIX, START_S, Outcome, Place
from ptychostream.benchmarks.kills.scans import PIXEL_M, SIDE
from ptychostream.demo.pvs import Pvs
from ptychostream.ioc.records.autosave import parse_values
from ptychostream.scans.phase_file import read_phase_image, read_provenance

_SETPOINT = "MaxLatency"


def run(place: Place, kills: int) -> Outcome:
    """Kill an IOC so often."""
    outcome, folder, saved = Outcome(), place.folder / "canvases", place.folder / "setpoints.sav"
    folder.mkdir()
    config = place.folder / "ioc.toml"
    config.write_text("[save]\ndelay_s = 0.1\n", encoding="utf-8")
    words = ["ioc", "--config", str(config), "--prefix", PREFIX, "--input-pv", CHANNEL, "--engine", "None"]
    words += ["--frame-shape", f"{SIDE}x{SIDE}", "--pixel-size", str(PIXEL_M), "--dose-scale", "0.01"]
    words += ["--save-directory", str(folder), "--save-automatic", "yes", "--autosave", str(saved)]
    named: set[str] = set()
    before = ""
    with place.detector(), contextlib.closing(place.pvs()) as pvs:
        for number in range(kills):
            ioc = place.victim("ptychostream", words)
            with ioc:
                place.wait(lambda: pvs.value("Ready_RBV") == 1, ioc, START_S, "the IOC is ready")
                if before:
                    outcome.check(f"setpoint {before}", lambda saved=before: _in_force(pvs, saved))
                pvs.put(_SETPOINT, 10.0 + number)

                def look() -> None:
                    with contextlib.suppress(TimeoutError):
                        named.add(str(pvs.get("LastSavedFile_RBV", timeout_s=0.5)[0]))

                place.live_and_die(ioc, 0.2, 4.0, look)
            outcome.kills += 1
            before = ""
            if saved.exists():
                before = parse_values(saved.read_text(encoding="utf-8"), str(saved)).get(PREFIX + _SETPOINT, "")
    for path in sorted(named - {""}):
        outcome.check(path, lambda path=path: whole(Path(path)))
    reported = {Path(path).name for path in named}
    for file in folder.glob("*.h5"):  # published, though nobody had time to read its name
        if file.name not in reported:
            outcome.check(str(file), lambda file=file: whole(file))
    return outcome


def _in_force(pvs: Pvs, saved: str) -> bool:
    return bool(np.isclose(float(pvs.get(f"{_SETPOINT}_RBV")[0]), float(saved)))


def whole(path: Path) -> bool:
    """Whether a canvas has all the frames that its accounting says."""
    image, told = read_phase_image(path), read_provenance(path)["frames"]
    return bool(np.isfinite(image.phase).any()) and told["on_canvas"] == told["stitched"] > 0
