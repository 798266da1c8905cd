"""The page about a run, made from the JSON files of its results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ptychostream.benchmarks.paper.result import Row
from ptychostream.benchmarks.paper.run_folder import MANIFEST


def page(folder: Path) -> str:
    """Markdown: how the run was made, and for each result its picture and its table."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    calls, run = manifest["calls"], manifest["run"]
    machines = sorted({f"{call['cores']} cores, {call['processor']}" for call in calls})
    commands = sorted({call["command"] for call in calls})
    lines = [
        f"# A run of reproduce: scale {run['scale']}",
        "",
        f"Seed {run['seed']}, {run['device']}; {'; '.join(machines)}; "
        + ", ".join(f"{name} {version}" for name, version in manifest["versions"].items())
        + f". {len(calls)} calls:",
        "",
        "```sh",
        *commands,
        "```",
        "",
    ]
    for path in sorted(folder.glob("*.json")):  # by name they stand in the paper's order
        if path.name != MANIFEST:
            lines += _section(path.stem, json.loads(path.read_text(encoding="utf-8")))
    return "\n".join(lines)


def _section(name: str, result: dict[str, Any]) -> list[str]:
    rows = [Row(**{key: value for key, value in row.items() if key != "passed"}) for row in result["rows"]]
    refined = any(row.refined is not None for row in rows)
    header = ["what", "paper", "network", *(["refined"] if refined else []), "line"]
    table = [
        [row.what, row.paper, row.text(row.ours), *([row.text(row.refined)] if refined else []), row.mark]
        for row in rows
    ]
    return [
        f"## {name}: {result['title']}",
        "",
        f"![{result['title']}]({name}.png)",
        "",
        f"| {' | '.join(header)} |",
        f"|{'---|' * len(header)}",
        *(f"| {' | '.join(cells)} |" for cells in table),
        "",
    ]
