"""Prints the reference of the records as Markdown: `python -m ptychostream.ioc.records.record_table`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence

from ptychostream.db.templates import GROUPS, STATES
from ptychostream.ioc.records.database import CLUSTER_GROUP, GPU_GROUP, RecordInfo, load_group, records

PREFIX = "P:"
TITLES = {
    "plugin": "Plugin",
    "accounting": "Accounting",
    "timing": "Timing",
    "stages": "Time in each stage",
    "decimation": "Decimation",
    "model": "Model",
    "canary": "Canary and rollback",
    "quality": "Quality and dose",
    "scan": "Scan and positions",
    "positions": "Positions as a stream, and what is left out",
    "canvases": "Scan boundaries and finished canvases",
    "images": "Images",
    "refine": "Refinement",
    "agent": "Agent",
    "health": "Health",
    "dropped": "Dropped frames, one record per cause",
    "gpu": "Graphics processor (where the machine has one)",
    "cluster": "Consumers (where they stitch the frames)",
}
HEAD = """# Records

Every record is served over Channel Access and PV Access, its name after the prefix given by `--prefix`
(`ptycho:NN1:`). A setpoint `X` has its readback in `X_RBV`. Commands go back to 0 when they are done; a put with
callback (`caput -c`, `pvput` with `record[block=true]`) waits for that. Texts (type `waveform`, `CHAR`) take and
give long strings: `caput -S`. *Saved*: kept over a restart by `--autosave`. *Group*: access security group, see
db/access.acf.

Beside the records these NTNDArrays are served over PV Access, uncompressed, at most `PhaseRate` times a second:

| channel | what it shows |
|---|---|
| `Phase` | the stitched phase, rad; unmeasured pixels hold the mean of the others (attribute `FillValue`) |
| `Weight` | what was added at each pixel of the `Phase` with the same uniqueId; 0 where nothing was measured |
| `Patch` | the latest patch that the network gave, rad |
| `Pattern` | the detector's frame that this patch was made of, decoded, counts; made while a client reads it |
| `Refined`, `RefinedAmplitude` | phase (rad) and modulus after the iterations of the refinement |
| `Probe` | modulus of the refined probe, all modes together, in square roots of counts |

`Phase` and `Weight` are float32 and square. The square is larger than the canvas, changes its size at most four times
in a scan, and keeps that of the scan before if this scan fits into it. The image of a finished scan comes twice.
`Refined` and `RefinedAmplitude` are squares of their own by the same rules; an image of another size than the one
before comes twice.

`Images` is a list of their names, an array of strings: a client finds an image there that it does not know.

`Model:Load` is a remote procedure call that takes a model; [Pushing a model](../model-push.md) describes it.

Their attributes: `ScanID`, `ModelVersion`, `ModelSHA`, `DoseScale`, `LastFrameId`; `Phase` and `Weight` also
`PixelSize`, `OriginX`, `OriginY` (m, the centre of the first pixel), `FramesStitched`, `FillValue`, and `CanvasLeft`,
`CanvasTop`, `CanvasWidth`, `CanvasHeight` (the pixels of the image that belong to the canvas); `Patch` and `Pattern`
also `PositionX`, `PositionY` (m, the patch's centre). The refined images have `FramesRefined`, `Passes`, `RFactor`,
`ProbeSource` and `Converged` in place of `DoseScale` and `FramesStitched`. `Probe` is no part of the canvas.

The group *health* has the names of iocStats. `ENGINEER` and `LOCATION` show the variables of these names. Not there:
`SYSRESET` and `READACF` (an operator restarts the IOC), `ACCESS` (see `Access_RBV`), `ST_SCRIPT` (there is none), and
`SYS_ZONE_TEMP` (`GPUTemperature_RBV` on machines that have one).
"""
_LIMITS = (("DRVL", "DRVH"), ("LOPR", "HOPR"))
_ALARMS = (("HIHI", "HHSV"), ("HIGH", "HSV"), ("LOW", "LSV"), ("LOLO", "LLSV"))


def describe(info: RecordInfo) -> str:
    """States, limits and alarms of a record, in words."""
    parts = []
    fields = info.fields
    if info.type in ("bi", "bo"):
        parts.append(" / ".join(_state(fields, name, f"{short}SV") for name, short in (("ZNAM", "Z"), ("ONAM", "O"))))
    if info.type in ("mbbi", "mbbo"):
        states = [_state(fields, f"{state}ST", f"{state}SV") for state in STATES if fields.get(f"{state}ST")]
        parts.append(" / ".join(states))
    for low, high in _LIMITS:
        if fields.get(low, "0") != fields.get(high, "0"):
            parts.append(f"{fields[low]} … {fields[high]}")
            break
    for level, severity in _ALARMS:
        if fields.get(severity, "NO_ALARM") != "NO_ALARM":
            parts.append(f"{fields[severity].lower()} from {fields[level]}")
    return "; ".join(parts)


def _state(fields: Mapping[str, str], name: str, severity: str) -> str:
    alarm = fields.get(severity, "NO_ALARM")
    return fields[name] + (f" ({alarm.lower()})" if alarm != "NO_ALARM" else "")


def table(infos: Iterable[RecordInfo]) -> str:
    """One group as a Markdown table."""
    columns = ("record", "type", "what", "unit", "states, limits, alarms", "group", "saved")
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for info in infos:
        cells = [
            f"`{info.name.removeprefix(PREFIX)}`",
            info.type if info.type != "waveform" else f"waveform, {info.fields['FTVL']}[{info.fields['NELM']}]",
            info.fields["DESC"],
            info.fields.get("EGU", ""),
            describe(info),
            info.fields["ASG"],
            "yes" if "autosaveFields" in info.info else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] = ()) -> int:
    """Print the reference; with `--json` the records themselves."""
    groups: dict[str, list[RecordInfo]] = {}
    seen: set[str] = set()
    for group in (*GROUPS, GPU_GROUP, CLUSTER_GROUP):
        load_group(group, PREFIX)
        groups[group] = sorted((info for info in records() if info.name not in seen), key=lambda info: info.name)
        seen |= {info.name for info in groups[group]}
    if "--json" in arguments:
        print(json.dumps({group: [plain(info) for info in infos] for group, infos in groups.items()}))
        return 0
    print(HEAD)
    for group, infos in groups.items():
        print(f"## {TITLES[group]}\n\n{table(infos)}\n")
    return 0


def plain(info: RecordInfo) -> dict[str, object]:
    """A record as JSON can hold it."""
    return {"name": info.name, "type": info.type, "fields": dict(info.fields), "info": dict(info.info)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
