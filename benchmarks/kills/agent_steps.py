"""Steps of the agent that `bench kills` kills: each leaves a line for its beginning and its end.

They run as `python -m ptychostream.benchmarks.kills.agent_steps STEP ARGUMENTS RESULT --progress FILE`. A step whose
end was noted is not noted again, as a real one finds what it has made.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from ptychostream.storage.atomic import write_bytes_atomic

_STEP_S = 0.15


def main(name: str, arguments_path: str, result_path: str, *_: str) -> int:
    """Run a step."""
    arguments = json.loads(Path(arguments_path).read_text(encoding="utf-8"))
    key, ledger = arguments["key"], Path(arguments["options"]["ledger"])
    time.sleep(_STEP_S)
    result = _step(name, key, arguments)
    line = f"{name} {key}"
    if not ledger.exists() or line not in ledger.read_text(encoding="utf-8").splitlines():
        at = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(at, f"{line}\n".encode())
        os.close(at)
    write_bytes_atomic(Path(result_path), json.dumps(result).encode())
    return 0


def _step(name: str, key: str, arguments: dict[str, Any]) -> dict[str, Any]:
    if name == "reconstruct":
        path = Path(arguments["folder"]) / "reconstruction.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"made")
        return {"reconstruction": str(path), "diverged": False, "r_factor": 0.1}
    if name == "label":
        return {"pairs": 10, "corpus_pairs": 10}
    if name == "judge":
        return {"model": Path(arguments["model"]).parent.name, "ssim_1px": 0.1, "previous": None}
    from ptychostream.benchmarks.limits.models import a_model
    from ptychostream.hpc_agent.models.model_store import ModelStore

    path = Path(arguments["options"]["ledger"]).with_name(f"{key}.onnx")
    return {"sha256": ModelStore(arguments["store"]).add(a_model(path, gain=1e-3 * (1 + int(key[1:]))))}


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
